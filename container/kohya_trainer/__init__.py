"""The trainer behind SageMaker's container contract: checks inputs, runs Kohya, proves the model,
explains failures.
"""
