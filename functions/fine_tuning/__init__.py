"""From a dropped dataset to a proved model: the rules, and the use cases that the handlers call.

`fine_tuning.aws` is the only place that speaks to AWS; everything else is data in, data out.
"""
