"""The use cases, one module each: of a state of the flow, or of a rule, a schedule or a command beside it.

Read, decide, write. Each takes the services that it works with; what several begin with is in reading.py.
"""
