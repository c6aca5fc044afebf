"""What can go wrong, each with its cause and what to do about it.

The state machine sees a class by its name and a message by `str(error)`; `split_message` takes the message
apart again.
"""

from __future__ import annotations

_REMEDY_MARK = " What to do: "


class FineTuningError(Exception):
    """Base of every failure that this application raises itself.

    Args:
        cause: one plain sentence.
        remedy: what a person does about it, one plain sentence.
    """

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}{_REMEDY_MARK}{remedy}")
        self.cause = cause
        self.remedy = remedy


class ConfigurationError(FineTuningError):
    """The stack gives a function something that it cannot work with."""


class ServiceUnavailableError(FineTuningError):
    """AWS throttled, timed out or failed on its side; the same call may succeed in a moment."""


class TooManyMailsError(FineTuningError):
    """More mails are on their way than a function has time for; this one may go out in a moment."""


class AccessDeniedError(FineTuningError):
    """A role lacks a permission."""


class AwsRequestError(FineTuningError):
    """AWS refused a request for another reason; repeating it changes nothing."""


class BuildQuotaError(FineTuningError):
    """CodeBuild runs as many builds of the account as it may; another one is started when one of them has ended."""


class ObjectMissingError(FineTuningError):
    """An S3 object that must be there is not."""


class RunUnknownError(FineTuningError):
    """No record of this run exists."""


class NotRetriableError(FineTuningError):
    """A run that is under way, has a model or was not accepted is not run once more."""


class DatasetChangedError(FineTuningError):
    """A file of the dataset is no longer what the inventory says."""


class RunsNotReconciledError(FineTuningError):
    """Some runs in flight could not be compared with their flows; the others were."""


class ModelNotProvenError(FineTuningError):
    """Training succeeded, but its result is not a model that can be shown to be whole."""


def split_message(message: str) -> tuple[str, str | None]:
    """The cause and, where the message has one, the remedy."""
    cause, mark, remedy = message.partition(_REMEDY_MARK)
    return cause, remedy if mark else None
