"""Step Functions: executions of the flow, and the tokens that it waits for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fine_tuning.aws.sdk import client
from fine_tuning.aws.translation import translated

if TYPE_CHECKING:
    from types_boto3_stepfunctions.client import SFNClient


# Statuses that an execution never leaves, but for a redrive, which nobody does here.
_OVER = frozenset({"SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"})


@dataclass(frozen=True)
class Ending:
    """How an execution ended: a status of Step Functions, or MISSING where there is no such execution."""

    status: str
    cause: str | None = None


class Executions:
    """The executions of one state machine."""

    def __init__(self, state_machine_arn: str) -> None:
        self._state_machine_arn = state_machine_arn

    def arn_of(self, name: str) -> str:
        """`arn:…:stateMachine:NAME` and an execution's name make `arn:…:execution:NAME:<name>`."""
        return f"{self._state_machine_arn.replace(':stateMachine:', ':execution:', 1)}:{name}"

    def start(self, name: str, payload: Mapping[str, Any]) -> None:
        """Starts the flow.

        A second start of the same name is the same run, running or over: nothing happens.
        """
        step_functions: SFNClient = client("stepfunctions")
        text = json.dumps(payload, sort_keys=True)
        taken = step_functions.exceptions.ExecutionAlreadyExists
        with translated(f"start the execution {name}"), suppress(taken):
            step_functions.start_execution(stateMachineArn=self._state_machine_arn, name=name, input=text)


def ending(status: str, cause: str | None) -> Ending | None:
    """Of an execution's status; None while it runs."""
    return Ending(status, cause) if status in _OVER else None


def ending_of(execution_arn: str) -> Ending | None:
    """How it ended; None while it runs."""
    step_functions: SFNClient = client("stepfunctions")
    with translated(f"look at {execution_arn}"):
        try:
            execution = step_functions.describe_execution(executionArn=execution_arn)
        except step_functions.exceptions.ExecutionDoesNotExist:
            return Ending("MISSING")
    return ending(execution["status"], execution.get("cause"))


def answer_token(token: str, output: Mapping[str, Any]) -> None:
    """Answers a waiting state. A token that was answered already, or timed out, needs no answer."""
    step_functions: SFNClient = client("stepfunctions")
    gone = step_functions.exceptions
    late = (gone.TaskTimedOut, gone.TaskDoesNotExist, gone.InvalidToken)
    with translated("answer the task token"), suppress(*late):
        step_functions.send_task_success(taskToken=token, output=json.dumps(output))
