"""What the commands of ./dev run.

`demo`, `up` and `down` know the embedded AWS. Everything after a deployment (drop, runs, push-image-source,
and the demo's own steps) speaks through boto3 to the stack's outputs alone, so it works against AWS as well.
"""
