"""AWS SDK errors become this application's, with a cause and a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from fine_tuning.errors import AccessDeniedError, AwsRequestError, FineTuningError, ServiceUnavailableError

_DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "AuthorizationError", "403", "UnauthorizedOperation"}
)
_TRANSIENT = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "TransactionConflictException",
    }
)


def code_of(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def condition_failed(error: ClientError) -> bool:
    """Whether DynamoDB wrote nothing because the condition of the write did not hold."""
    return code_of(error) == "ConditionalCheckFailedException"


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Names what was tried: `with translated("read s3://…"):`."""
    try:
        yield
    except ClientError as cause:
        raise _of_client_error(action, cause) from cause
    except BotoCoreError as cause:
        message = f"AWS could not be reached to {action}: {cause}."
        raise ServiceUnavailableError(message, "Wait a while.") from cause


def _of_client_error(action: str, error: ClientError) -> FineTuningError:
    code = code_of(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"({code}: {error.response.get('Error', {}).get('Message', '')})"
    if code in _TRANSIENT or status >= 500:
        return ServiceUnavailableError(f"AWS could not {action} {said}.", "Wait a while.")
    if code in _DENIED:
        return AccessDeniedError(
            f"The function may not {action} {said}.", "Give its role in template.yaml that permission."
        )
    return AwsRequestError(
        f"AWS refused to {action} {said}.", "Look into the function's log for the request."
    )
