"""What AWS refuses, or could not be asked, as one sentence with its remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    LoginError,
    NoCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NoConnectionError

from local.cli.failure import CommandError
from local.cli.interruption import leaving

BUILD_QUOTA = "Concurrently running builds for Linux/Large environment"  # AWS's name of it in Service Quotas

_ENDED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "RequestExpired",
        "UnrecognizedClientException",
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"})
_BUSY = frozenset(
    {"SlowDown", "ThrottledException", "Throttling", "ThrottlingException", "TooManyRequestsException"}
)
_WITHOUT_LOGIN = (CredentialRetrievalError, LoginError, NoCredentialsError, SSOError, TokenRetrievalError)
_OUT_OF_REACH = (HTTPClientError, NoConnectionError)
_LOG_IN = "Log in again (such as with `aws sso login`), then repeat the command."


def is_busy(error: ClientError) -> bool:
    """Whether AWS would answer the same request later."""
    return error.response.get("Error", {}).get("Code") in _BUSY


@contextmanager
def told(what_stays: str = "") -> Iterator[None]:
    """Raises CommandError in the place of the SDK's errors; who interrupts it reads what stays too.

    Args:
        what_stays: a sentence of what is true all the same, such as that a run goes on.
    """
    try:
        with leaving(what_stays):
            yield
    except (ClientError, BotoCoreError, Boto3Error) as error:
        raise CommandError(" ".join(filter(None, (what_stays, sentence(error))))) from error


def sentence(error: Exception) -> str:
    """The cause in AWS's own words, and the remedy."""
    if isinstance(error, Boto3Error) and isinstance(error.__context__, ClientError):
        error = error.__context__  # an upload hides the refusal behind an error of its own
    code = str(error.response.get("Error", {}).get("Code")) if isinstance(error, ClientError) else ""
    if code in _ENDED or isinstance(error, _WITHOUT_LOGIN):
        return f"AWS does not take these credentials ({error}). {_LOG_IN}"
    if code in _DENIED:
        return (
            f"AWS does not allow it to these credentials ({error}). Have the permission given, or use others."
        )
    if code == "AccountLimitExceededException":
        return (
            f"CodeBuild starts no build ({error}). Raise the quota `{BUILD_QUOTA}` in Service Quotas, or wait for the "
            "build that uses it; then ./dev push-image-source."
        )
    if code in _BUSY or isinstance(error, _OUT_OF_REACH):
        return f"AWS could not be reached, or is busy ({error}). Repeat the command in a moment."
    return f"AWS refuses it ({error}). Repeating the command changes nothing unless that is mended."
