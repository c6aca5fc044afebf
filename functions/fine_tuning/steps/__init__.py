"""The use cases, one module a state of the flow.

Read, decide, write. Each takes the services that it works with.
"""
