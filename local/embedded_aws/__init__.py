"""An AWS in one process on the loopback interface: ministack, corrected and extended to what this application uses.

`python -m local.embedded_aws` starts it. One module a service; each has `install()`, which replaces named parts of
ministack and fails loudly where a name is gone, so that another version is noticed at start-up and not in a run.
"""
