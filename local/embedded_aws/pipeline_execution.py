"""One execution of a SageMaker pipeline: its steps, each as soon as what it needs has succeeded, and their events."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any

from local.embedded_aws.pipeline_definition import Definition, Step, Values, holds, needed_steps
from local.embedded_aws.registration import emit_event, log
from local.embedded_aws.request_validation import RequestError

EXECUTION_CHANGE = "SageMaker Model Building Pipeline Execution Status Change"
STEP_CHANGE = "SageMaker Model Building Pipeline Execution Step Status Change"
REASON_LENGTH = 1024


class StepFailedError(Exception):
    """A step that failed; the message is its FailureReason.

    Attributes:
        exception_type: what a RetryPolicy calls it, such as SageMaker.CAPACITY_ERROR, or None.
    """

    def __init__(self, reason: str, exception_type: str | None = None) -> None:
        super().__init__(reason)
        self.exception_type = exception_type


class StepStoppedError(Exception):
    """A step that ended because the execution was stopped."""


class PipelineExecution:
    """An execution.

    Attributes:
        arn, identifier: the execution's ARN and its last part (12 characters).
        role_arn: the role that the pipeline runs as.
        values: what references stand for.
        parameters: as StartPipelineExecution was given them, completed by the defaults.
        stop_requested: set by StopPipelineExecution.
    """

    def __init__(
        self,
        pipeline: Mapping[str, Any],
        definition: Definition,
        parameters: Mapping[str, object],
        identifier: str,
        display: Mapping[str, str],
    ) -> None:
        now = time.time()
        self.pipeline_arn, self.identifier = str(pipeline["PipelineArn"]), identifier
        self.arn = f"{self.pipeline_arn}/execution/{identifier}"
        self.role_arn = str(pipeline["RoleArn"])
        self.parameters, self.definition = parameters, definition
        start = timestamp(now)
        self.values = Values(
            parameters,
            {
                "CurrentDateTime": start,
                "StartDateTime": start,
                "PipelineArn": self.pipeline_arn,
                "PipelineExecutionArn": self.arn,
                "PipelineExecutionId": identifier,
                "PipelineName": str(pipeline["PipelineName"]),
            },
        )
        self.stop_requested = threading.Event()
        self.steps: dict[str, dict[str, Any]] = {}
        self._lock = threading.RLock()
        self.description: dict[str, Any] = {
            "PipelineArn": self.pipeline_arn,
            "PipelineExecutionArn": self.arn,
            "PipelineExecutionDisplayName": f"execution-{int(now * 1000)}",
            **display,
            "CreationTime": now,
            "LastModifiedTime": now,
        }

    @property
    def status(self) -> str:
        return str(self.description.get("PipelineExecutionStatus", "Executing"))

    def move(self, status: str, **members: Any) -> None:
        """Change the status and emit the event."""
        with self._lock:
            previous, now = self.description.get("PipelineExecutionStatus"), time.time()
            self.description.update(members, PipelineExecutionStatus=status, LastModifiedTime=now)
        detail = {
            "pipelineExecutionDescription": self.description.get("PipelineExecutionDescription", ""),
            "pipelineExecutionDisplayName": self.description["PipelineExecutionDisplayName"],
            "currentPipelineExecutionStatus": status,
            "executionStartTime": timestamp(self.description["CreationTime"]),
            "pipelineArn": self.pipeline_arn,
            "pipelineExecutionArn": self.arn,
        }
        if previous is not None:
            detail["previousPipelineExecutionStatus"] = previous
        if status not in ("Executing", "Stopping"):
            detail["executionEndTime"] = timestamp(now)
        emit_event("aws.sagemaker", EXECUTION_CHANGE, detail, [self.pipeline_arn, self.arn])

    def move_step(self, step: Step, status: str, **members: Any) -> None:
        with self._lock:
            record = self.steps.setdefault(step["Name"], {"StepName": step["Name"], "StartTime": time.time()})
            previous = record.get("StepStatus")
            record.update(members, StepStatus=status)
            if status in ("Succeeded", "Failed", "Stopped"):
                record["EndTime"] = time.time()
            record = dict(record)
        detail = {
            "metadata": {
                _camel(kind): _camel_keys(value) for kind, value in record.get("Metadata", {}).items()
            },
            "stepStartTime": timestamp(record["StartTime"]),
            "stepName": step["Name"],
            "stepType": step["Type"],
            "currentStepStatus": status,
            "pipelineArn": self.pipeline_arn,
            "pipelineExecutionArn": self.arn,
        }
        if "FailureReason" in record:
            detail["failureReason"] = record["FailureReason"]
        if previous is not None:
            detail["previousStepStatus"] = previous
        if "EndTime" in record:
            detail["stepEndTime"] = timestamp(record["EndTime"])
        emit_event("aws.sagemaker", STEP_CHANGE, detail, [self.pipeline_arn, self.arn])

    def run(self, runners: Mapping[str, Any]) -> None:
        """Run all steps; `runners` maps a step type to `runner(execution, step)`, which returns the taken branch."""
        with ThreadPoolExecutor(max_workers=8, thread_name_prefix="pipeline") as pool:
            self._schedule(pool, runners)
        if any(step["StepStatus"] == "Failed" for step in self.steps.values()):
            self.move("Failed", FailureReason="Step failure: One or multiple steps failed.")
        elif self.stop_requested.is_set():
            self.move("Stopped")
        else:
            self.move("Succeeded")

    def _schedule(self, pool: ThreadPoolExecutor, runners: Mapping[str, Any]) -> None:
        waiting = [self.definition.steps[name] for name in self.definition.outer]
        running: dict[Future[list[Step]], Step] = {}
        while True:
            halted = self.stop_requested.is_set() or any(
                s["StepStatus"] == "Failed" for s in self.steps.values()
            )
            for step in [] if halted else list(waiting):
                if all(self._succeeded(name) for name in needed_steps(step)):
                    waiting.remove(step)
                    running[pool.submit(copy_context().run, self._run_step, runners[step["Type"]], step)] = (
                        step
                    )
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                running.pop(future)
                waiting.extend(future.result())

    def _succeeded(self, name: str) -> bool:
        """Whether a step and, of a Condition step, its taken branch has succeeded."""
        if self.steps.get(name, {}).get("StepStatus") != "Succeeded":
            return False
        outcome = self.steps[name].get("Metadata", {}).get("Condition", {}).get("Outcome")
        if outcome is None:
            return True
        return all(
            self._succeeded(inner["Name"]) for inner in branch(self.definition.steps[name], outcome == "True")
        )

    def _run_step(self, runner: Any, step: Step) -> list[Step]:
        self.move_step(step, "Starting")
        if step["Type"] != "Training":  # that step executes from when its job exists
            self.move_step(step, "Executing")
        try:
            following: list[Step] = runner(self, step)
        except StepStoppedError:
            self.move_step(step, "Stopped")
        except (StepFailedError, RequestError) as error:
            self.move_step(step, "Failed", FailureReason=str(error)[:REASON_LENGTH])
        except Exception as error:  # a fault of the emulator fails the step instead of leaving it Executing
            log.exception("step %s of %s", step["Name"], self.arn)
            self.move_step(step, "Failed", FailureReason=f"InternalError: {error}"[:REASON_LENGTH])
        else:
            self.move_step(step, "Succeeded")
            return following
        return []


def run_condition(execution: PipelineExecution, step: Step) -> list[Step]:
    """Conditions are ANDed; the steps of the branch that is taken follow."""
    outcome = all(holds(condition, execution.values.resolve) for condition in step["Arguments"]["Conditions"])
    execution.steps[step["Name"]]["Metadata"] = {"Condition": {"Outcome": str(outcome)}}
    return branch(step, outcome)


def branch(step: Step, outcome: bool) -> list[Step]:
    """The steps of a Condition step that follow its outcome."""
    return list(step["Arguments"].get("IfSteps" if outcome else "ElseSteps") or [])


def run_fail(execution: PipelineExecution, step: Step) -> list[Step]:
    message = str(execution.values.resolve((step.get("Arguments") or {}).get("ErrorMessage", "")))
    execution.steps[step["Name"]]["Metadata"] = {"Fail": {"ErrorMessage": message}}
    raise StepFailedError(message)


def timestamp(seconds: float) -> str:
    """Such as 2021-03-10T01:16:23Z."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _camel(name: str) -> str:
    return name[0].lower() + name[1:]


def _camel_keys(value: Mapping[str, Any]) -> dict[str, Any]:
    return {_camel(key): item for key, item in value.items()}
