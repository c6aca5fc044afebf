"""What stands in for AWS and for the GPU on a developer's machine; nothing that is deployed imports it."""
