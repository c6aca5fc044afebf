"""What ended a run early, in words for its user: a cause, one remedy, the last log lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fine_tuning.errors import split_message
from fine_tuning.service_limit import service_limit

_WHERE = {
    "TakeInventory": "while its files were listed",
    "InspectShards": "while its files were inspected",
    "PlanRun": "while it was planned",
    "ResolveImage": "while its training image was looked for",
    "ClaimIdentity": "before training",
    "TakeSlot": "while it waited for its turn",
    "StartPipeline": "when training was started",
    "WatchTraining": "in training",
    "VerifyModel": "when its model was checked",
}
# error name → what to do, where the failure itself does not say.
_REMEDIES = {
    "ImageBuildFailed": "Read the build's log in CodeBuild, mend container/, then ./dev push-image-source.",
    "SageMaker.ResourceLimitExceededException": "Ask for a higher quota of pipeline executions, or wait.",
    "UnknownTrainingStatus": "Look at the pipeline execution in SageMaker; the flow has asked it to stop.",
    "States.Timeout": "Look at the execution in Step Functions for the state that took too long.",
}
_STOPS = {
    "deadline": "The training was not over at its deadline, so the flow stopped it.",
    "stall": "The training made no step for longer than the stack allows (StallSeconds), so the flow stopped it.",
    "no-first-step": (
        "The training made no first step within what the stack allows (StallSeconds), nor within twice the time that "
        "was quoted for start-up and the encoding of the images, so the flow stopped it."
    ),
}
_STOPPED_BY_THE_FLOW = "Read the training job's log in CloudWatch for what it was doing."
_RUN_ANEW = "Nothing, or run it again."
_LOOK_AT_THE_JOB = "Read the training job's log in CloudWatch."
# What the container puts before the lines that SageMaker cuts anyway (container/kohya_trainer/failure.py).
_EARLIER_LINES = "Before these:"
_LOOK_AT_THE_EXECUTION = "Look at the execution in Step Functions; it shows every step."


@dataclass(frozen=True)
class Failure:
    """Why a run ended without a model. `observation` as far as training had begun."""

    where: str
    cause: str
    remedy: str
    log_lines: tuple[str, ...] = ()
    observation: Mapping[str, Any] | None = None

    def as_document(self) -> dict[str, str]:
        return {"cause": self.cause, "remedy": self.remedy}


def of_flow(facts: Mapping[str, Any]) -> Failure:
    """Of the state machine's `{"stage", "error", "cause", "observation"?}`.

    The cause may be a Lambda's error document.
    """
    stage, name = str(facts.get("stage", "")), str(facts.get("error", ""))
    observation = facts.get("observation")
    text = _message_of(str(facts.get("cause") or ""))
    cause, remedy, lines = _parts(text)
    if stage == "WatchTraining" and remedy is None and (limit := service_limit(cause, observation)):
        cause, remedy = limit.cause or cause, limit.remedy
    otherwise = _LOOK_AT_THE_JOB if stage == "WatchTraining" else _LOOK_AT_THE_EXECUTION
    return Failure(
        where=_WHERE.get(stage, "before it was done"),
        cause=cause or f"{name or 'The flow'} gave no cause.",
        remedy=remedy or _REMEDIES.get(name, otherwise),
        log_lines=lines,
        observation=observation,
    )


def of_stop(observation: Mapping[str, Any], requested: Mapping[str, Any] | None = None) -> Failure:
    """Of a training that SageMaker reports as stopped.

    `requested`: what the flow has noted when it stopped the training itself; its `by` is a key of _STOPS.
    """
    said, remedy, lines = _parts(str(observation.get("reason") or ""))
    cause = _STOPS.get(str((requested or {}).get("by")))
    if cause:
        remedy = _STOPPED_BY_THE_FLOW
    elif remedy is None and (limit := service_limit(said, observation)):
        cause, remedy = limit.cause, limit.remedy
    return Failure(
        where="in training",
        cause=cause
        or said
        or "The training was stopped in SageMaker, by a person or a program of your account.",
        remedy=remedy or _RUN_ANEW,
        log_lines=lines,
        observation=observation,
    )


def of_ended_execution(
    status: str, cause: str | None, observation: Mapping[str, Any] | None = None
) -> Failure:
    """Of a flow that ended without having told its user; `status` is that of its Ending (aws/executions.py)."""
    causes = {
        "ABORTED": "The flow was aborted by a person.",
        "TIMED_OUT": "The flow ran out of time.",
        "SUCCEEDED": "The flow ended without a word of the run's outcome.",
        "MISSING": "The flow of this run was never started, or is no longer known.",
    }
    said, remedy, _ = _parts(_message_of(cause or ""))
    return Failure(
        where="before it was done",
        cause=causes.get(status) or said or "The flow failed without a cause.",
        remedy=remedy or (_RUN_ANEW if status == "ABORTED" else _LOOK_AT_THE_EXECUTION),
        observation=observation,
    )


def _message_of(cause: str) -> str:
    """A Lambda's error reaches the flow as `{"errorMessage", "errorType", "stackTrace"}`."""
    if cause.startswith("{"):
        try:
            document = json.loads(cause)
        except ValueError:
            return cause
        if isinstance(document, dict) and "errorMessage" in document:
            return str(document["errorMessage"])
    return cause


def _parts(text: str) -> tuple[str, str | None, tuple[str, ...]]:
    """Cause, remedy and log lines.

    A Lambda's message is one line with the remedy behind a mark (errors.py); a training job's reason is what the
    container wrote: the cause, the remedy, then log lines.
    """
    first, *rest = [line.rstrip() for line in text.strip().splitlines() if line.strip()] or [""]
    cause, remedy = split_message(first)
    if remedy is None and rest:
        remedy, *rest = rest
        remedy = remedy.removeprefix("What to do: ").removeprefix("Remedy: ")
    if _EARLIER_LINES in rest:
        rest = rest[: rest.index(_EARLIER_LINES)]
    return cause, remedy, tuple(rest)
