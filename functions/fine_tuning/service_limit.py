"""What SageMaker says when it grants no instance, no more time, cannot download, or fails itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fine_tuning.account_limit import AccountLimit
from fine_tuning.attempts import Lack, to_raise

_QUOTA = re.compile(r"ResourceLimitExceeded|account-level service limit", re.IGNORECASE)
# At the beginning: what a container writes about its own troubles is no lack of an instance.
_JOB_LACKS_CAPACITY = re.compile(r"(ClientError: )?CapacityError\b", re.IGNORECASE)
_INTERNAL_ERROR = re.compile(r"(ClientError: )?InternalServerError\b", re.IGNORECASE)
_TOO_MANY_EXECUTIONS = (
    "SageMaker.ResourceLimitExceededException"  # of StartPipelineExecution, as Catch sees it
)
NO_INSTANCE = "no-instance"  # the flow itself gave the attempt up (deadline.py)
_CAPACITY = re.compile(r"CapacityError|insufficient\s*capacity", re.IGNORECASE)
_RUNTIME = re.compile(r"MaxRuntime(InSeconds)?\s*Exceeded|exceeded\s+MaxRuntimeInSeconds", re.IGNORECASE)
_WAIT = re.compile(r"MaxWaitTime(InSeconds)?\s*Exceeded|exceeded\s+MaxWaitTimeInSeconds", re.IGNORECASE)

# Of a channel; the container never ran, so there is no log.
_DOWNLOAD = re.compile(r"(ClientError: )?Data download failed", re.IGNORECASE)


@dataclass(frozen=True)
class ServiceLimit:
    """A limit that was met, and what to do. `cause` None: SageMaker's own words say it."""

    remedy: str
    cause: str | None = None


def service_limit(reason: str, observation: Mapping[str, Any] | None) -> ServiceLimit | None:
    """The limit that ended a training, if it was one.

    Args:
        reason: SageMaker's words, one line; what a container wrote is its own affair.
        observation: of docs/contracts.md. Its secondary status alone tells of a time limit.
    """
    seen = observation or {}
    text = f"{reason} {seen.get('secondary_status') or ''}"
    if _QUOTA.search(text):
        return ServiceLimit(to_raise([quota_of(text, seen)]))
    if _DOWNLOAD.match(reason):
        return ServiceLimit(
            "Look at the object that it names: rename it where its key has '//' or cannot become a file, bring it back "
            "where it is gone. Then drop the manifest again."
        )
    if _CAPACITY.search(text):
        spot = ', set "spot": false' if seen.get("spot") else ""
        return ServiceLimit(f"Try again later{spot}, or name another instance type in `instance_types`.")
    if _WAIT.search(text):
        return ServiceLimit(
            'Set "spot": false, name another instance type, or raise MaxTrainingRuntimeInSeconds of the stack.',
            "The wait for spot capacity and the training together reached their time limit.",
        )
    if _RUNTIME.search(text):
        return ServiceLimit(
            "Allow more time (MaxTrainingRuntimeInSeconds of the stack, max_cost_usd), train fewer steps, or "
            "name a faster instance type.",
            "The training reached its time limit.",
        )
    return None


def lack_of(error: str, reason: str, observation: Mapping[str, Any]) -> Lack | None:
    """What of SageMaker's ended a training, mostly the lack of an instance; None where the training itself did.

    Args:
        error: name of the error that the flow caught, or NO_INSTANCE.
        reason: SageMaker's words.
        observation: of docs/contracts.md; without a training job CreateTrainingJob itself was refused.
    """
    # Where SageMaker names a quota and its numbers do not explain the refusal, they are not the newest.
    limit = AccountLimit.of(reason)
    if error == _TOO_MANY_EXECUTIONS:
        return "quota-in-use" if limit.is_in_use else "quota"
    if error == NO_INSTANCE:
        return "no-instance"
    if not observation.get("training_job") and _QUOTA.search(reason):
        return "quota-too-small" if limit.never_allows else "quota-in-use" if limit.is_in_use else "quota"
    if _JOB_LACKS_CAPACITY.match(reason):
        return "capacity"
    if _INTERNAL_ERROR.match(reason):
        return "internal-error"
    if observation.get("spot") and observation.get("secondary_status") == "MaxWaitTimeExceeded":
        return "spot-wait"
    return None


def quota_of(text: str, observation: Mapping[str, Any]) -> str:
    """The quota that was met, as Service Quotas lists it; that of the instance where SageMaker names none."""
    if name := AccountLimit.of(text).name:
        return name
    instance_type = observation.get("instance_type") or "<instance type>"
    return f"{instance_type} for {'spot ' if observation.get('spot') else ''}training job usage"
