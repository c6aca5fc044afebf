"""Tasks and executions of Step Functions: task tokens, time limits, stopping, and starting twice.

ministack's `_ExecutionError` is the error that Retry and Catch see; `ExecutionOverError` passes them by.
"""

import contextvars
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ministack.core.responses import new_uuid, now_iso
from ministack.services import cloudwatch
from ministack.services import stepfunctions as states

from local.embedded_aws.faults import FAULTS
from local.embedded_aws.patching import replace
from local.embedded_aws.registration import (
    Response,
    error_response,
    in_background,
    json_response,
    register_resource_arn,
)
from local.embedded_aws.step_functions_language import Context, State, is_jsonata

Execution = dict[str, Any]
Request = Mapping[str, Any]

MAXIMUM_TASK_SECONDS = 99_999_999
MAXIMUM_NAME_LENGTH = 80

current_execution: contextvars.ContextVar[Execution | None] = contextvars.ContextVar(
    "current_execution", default=None
)

_issued: dict[str, Execution] = {}
"""Every task token and the execution that issued it, also after its task is over."""
_over: dict[str, threading.Event] = {}
"""Set when the execution of that ARN has reached its final status."""

METRICS = {
    "RUNNING": "ExecutionsStarted",
    "SUCCEEDED": "ExecutionsSucceeded",
    "FAILED": "ExecutionsFailed",
    "ABORTED": "ExecutionsAborted",
    "TIMED_OUT": "ExecutionsTimedOut",
}


class ExecutionOverError(Exception):
    """The execution was stopped or timed out: nothing of it starts any more, whatever Retry and Catch say."""


def install() -> None:
    known_task = replace(states, "_execute_task", lambda *task: run_task(known_task, *task))
    known_arguments = replace(
        states, "_apply_jsonata_arguments", lambda *state: arguments(known_arguments, *state)
    )
    replace(states, "_invoke_with_callback", invoke_and_wait)
    known_success = replace(
        states, "_send_task_success", lambda request: send_success(known_success, request)
    )
    known_failure = replace(
        states, "_send_task_failure", lambda request: token_refusal(request) or known_failure(request)
    )
    known_start = replace(states, "_start_execution", lambda request: start_execution(known_start, request))
    known_fail = replace(
        states, "_fail_execution", lambda *failure: running(failure[0]) and known_fail(*failure)
    )
    known_event = replace(states, "_add_event", lambda *event: add_event(known_event, *event))
    known_status = replace(
        states, "_emit_execution_status_event", lambda execution: announce(known_status, execution)
    )
    register_resource_arn("states", issuing_state_machine)


def running(execution: Execution | None) -> bool:
    return execution is None or execution["status"] == "RUNNING"


def run_task(
    known_task: Callable[..., tuple[Any, str | None]],
    state: State,
    data: Any,
    execution: Execution,
    context: Context,
) -> tuple[Any, str | None]:
    """A Task, with TimeoutSeconds as a number: it may be an expression."""
    if not running(execution):
        raise ExecutionOverError(execution["executionArn"])
    if is_jsonata(state, context) and isinstance(state.get("TimeoutSeconds"), str):
        seconds = states._jsonata_state_field(state, "TimeoutSeconds", "number", data, context)
        state = {**state, "TimeoutSeconds": seconds}
    before = current_execution.set(execution)
    try:
        return known_task(state, data, execution, context)
    finally:
        current_execution.reset(before)


def arguments(
    known_arguments: Callable[..., Any], state: State, data: Any, context: Context | None = None
) -> Any:
    """A task's Arguments, evaluated once an attempt: each attempt has a token of its own."""
    execution = current_execution.get()
    if (
        context is not None
        and execution is not None
        and state.get("Resource", "").endswith(".waitForTaskToken")
    ):
        context["Task"] = {"Token": new_uuid()}
        _issued[context["Task"]["Token"]] = execution
    return known_arguments(state, data, context)


def invoke_and_wait(resource: str, data: Any, token: str, state: State) -> Any:
    """Call the integration, which hands the token on, and wait until somebody answers it.

    A failing call fails the task, and its time counts against TimeoutSeconds.
    """
    answered = threading.Event()
    answer: dict[str, Any] = {"event": answered, "result": None, "error": None, "heartbeat": None}
    deadline = time.monotonic() + state.get("TimeoutSeconds", MAXIMUM_TASK_SECONDS)
    states._task_tokens[token] = answer
    try:
        states._invoke_resource_with_timeout(
            resource.removesuffix(".waitForTaskToken"), data, deadline - time.monotonic()
        )
        in_time = answered.wait(max(0.0, deadline - time.monotonic()))
    finally:
        states._task_tokens.pop(token, None)
    if not running(_issued.get(token)):
        raise ExecutionOverError(resource)
    if not in_time:
        raise states._ExecutionError("States.Timeout", "The task was not answered in time")
    if answer["error"]:
        raise states._ExecutionError(answer["error"]["Error"], answer["error"]["Cause"])
    return json.loads(answer["result"])


def send_success(known_success: Callable[[Request], Response], request: Request) -> Response:
    try:
        json.loads(request.get("output", ""))
    except ValueError:
        return error_response("InvalidOutput", "Invalid Output: 'The output is not valid JSON'")
    return token_refusal(request) or known_success(request)


def token_refusal(request: Request) -> Response | None:
    """Why a token cannot be answered; None when somebody waits for it. Each is answered once."""
    token = request.get("taskToken", "")
    if token not in _issued:
        return error_response("InvalidToken", f"Invalid Token: '{token}'")
    waiting = states._task_tokens.get(token)
    if waiting is None or waiting["event"].is_set() or not running(_issued[token]):
        return error_response("TaskTimedOut", "Task Timed Out: 'Provided task does not exist anymore'")
    return None


def issuing_state_machine(operation: str, request: Request) -> str | None:
    """SendTask* is authorized on the state machine whose execution issued the token."""
    execution = _issued.get(request.get("taskToken", "")) if operation.startswith("SendTask") else None
    return str(execution["stateMachineArn"]) if execution else None


def start_execution(known_start: Callable[[Request], Response], request: Request) -> Response:
    """What runs already, under that name and with that input, is not started but answered again."""
    name = request.get("name")
    if name and len(name) > MAXIMUM_NAME_LENGTH:
        return error_response("InvalidName", f"Invalid Name: '{name}'")
    machine = states._resolve_state_machine_arn(request.get("stateMachineArn", ""))
    if machine and name:
        same = states._executions.get(f"{machine.replace(':stateMachine:', ':execution:')}:{name}")
        if same and running(same) and same["input"] == request.get("input", "{}"):
            return json_response({"executionArn": same["executionArn"], "startDate": same["startDate"]})
    status, headers, body = known_start(request)
    if status == 200:
        limit = json.loads(states._state_machines[machine]["definition"]).get("TimeoutSeconds")
        fault = FAULTS.strike("execution", lambda: f"{machine} {name} {request.get('input')}")
        limit = fault["limit"] if fault else limit
        if limit:
            in_background(time_out, states._executions[json.loads(body)["executionArn"]], limit)
    return status, headers, body


def time_out(execution: Execution, seconds: float) -> None:
    """End the execution as TIMED_OUT unless it is over by itself within its machine's TimeoutSeconds."""
    if _over[execution["executionArn"]].wait(seconds) or not running(execution):
        return
    execution.update(status="TIMED_OUT", error="States.Timeout", stopDate=now_iso())
    states._add_event(
        execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {"error": "States.Timeout"}}
    )
    states._emit_execution_status_event(execution)


def add_event(
    known_event: Callable[..., Any], execution: Execution, kind: str, details: Mapping[str, Any] | None = None
) -> Any:
    """Record a history event; an execution that is over gets none but the one that says how it ended."""
    if running(execution) or kind.startswith("Execution"):
        return known_event(execution, kind, details)
    return None


def announce(known_status: Callable[[Execution], None], execution: Execution) -> None:
    """Emit the status-change event, count the metric, and wake whoever waits for what is over."""
    arn = execution["executionArn"]
    over = _over.setdefault(arn, threading.Event())
    known_status(execution)
    cloudwatch.record_metric(
        "AWS/States",
        METRICS[execution["status"]],
        1,
        "Count",
        {"StateMachineArn": execution["stateMachineArn"]},
    )
    if running(execution):
        return
    over.set()
    for token, issuer in list(_issued.items()):
        waiting = states._task_tokens.get(token) if issuer is execution else None
        if waiting is not None:
            waiting["event"].set()
