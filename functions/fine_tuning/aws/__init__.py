"""The edge.

One module a service. boto3 is imported by the first call, so that importing a handler stays quick.
"""
