"""The SageMaker pipeline: authored with the sagemaker SDK, deployed as literal JSON by template.yaml."""

import os

# The SDK creates a client while it is imported and looks roles up while it renders; neither needs an account here.
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
os.environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")
