"""Log streams that a service makes in CloudWatch Logs with somebody's role."""

from typing import Any

from botocore.exceptions import ClientError


def create_log_stream(logs: Any, group: str, stream: str) -> None:
    """Create the stream; the group only where it is missing, so that a role needs that permission only then."""
    try:
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        try:
            logs.create_log_group(logGroupName=group)
        except ClientError as refused:  # two first jobs at a time
            if refused.response["Error"]["Code"] != "ResourceAlreadyExistsException":
                raise
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
