"""Where faults strike: at requests, invocations of Lambdas and deliveries of events (training jobs: training_run.py).

`PUT`, `GET` and `DELETE /_embedded/faults[/<name>]` set, list and remove them (faults.py). An occasion is a text; what
belongs to a pipeline execution also carries its display name, so that the faults of one run meet no other.
"""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from ministack import app
from ministack.core import iam_evaluator
from ministack.services import eventbridge, lambda_svc
from ministack.services import stepfunctions as states

from local.embedded_aws import sagemaker_pipelines
from local.embedded_aws.faults import FAULTS, FaultError, fault_of
from local.embedded_aws.lambda_functions import CLOCK
from local.embedded_aws.patching import replace
from local.embedded_aws.registration import Response, in_background

PATH = "/_embedded/faults"
Effect = Mapping[str, Any]
Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


def install() -> None:
    invoke = replace(lambda_svc, "_execute_function_warm", lambda *call: invoked(invoke, *call))
    deliver = replace(eventbridge, "_invoke_target", lambda *delivery: delivered(deliver, *delivery))
    handle = replace(app, "call_service_handler_sync", lambda *call, **more: called(handle, *call, **more))
    integrate = replace(
        states, "_invoke_resource", lambda resource, data: integrated(integrate, resource, data)
    )


def named(text: str) -> str:
    """The text and the display names of the pipeline executions that it mentions."""
    names = [
        str(execution.description["PipelineExecutionDisplayName"])
        for execution in list(sagemaker_pipelines._executions.values())
        if execution.identifier in text
    ]
    return " ".join([text, *names])


# Requests over HTTP


def faulty(application: Any) -> Any:
    """The ASGI application behind faults, and the administration of faults beside it."""

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PATH):
            await administer(scope, receive, send)
        elif scope["type"] == "http" and FAULTS.any_at("call"):
            await answer_or_fail(application, scope, receive, send)
        else:
            await application(scope, receive, send)

    return answer


async def administer(scope: Message, receive: Receive, send: Send) -> None:
    name = unquote(scope["path"][len(PATH) :].lstrip("/"))
    status = 200
    answer: dict[str, Any] = {}
    if scope["method"] == "GET":
        answer = {"faults": FAULTS.all()}
    elif scope["method"] == "DELETE":
        status = 200 if FAULTS.remove(name) else 404
    else:
        try:
            FAULTS.put(fault_of(name, json.loads(await body_of(receive))))
        except (FaultError, ValueError) as problem:
            status, answer = 400, {"message": str(problem)}
    await respond(send, (status, {"content-type": "application/json"}, json.dumps(answer).encode()))


async def answer_or_fail(application: Any, scope: Message, receive: Receive, send: Send) -> None:
    body = await body_of(receive)
    headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
    target = f"{scope['path']}?{scope.get('query_string', b'').decode()}"
    effect = FAULTS.strike("call", lambda: request_text(scope["method"], target, headers, body))

    async def again() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    if effect is None:
        await application(scope, again, send)
        return
    for tick in FAULTS.ticks(effect):
        await asyncio.sleep(tick)
    if "answer" in effect:
        await respond(send, await answer_of(application, scope, again, effect["answer"]))
        return
    if not is_failure(effect):
        await application(scope, again, send)
        return
    if effect.get("afterwards"):
        await application(scope, again, unheard)
    if effect.get("drop"):
        hang_up(scope["client"])
        return
    await respond(send, refusal(headers, effect))


async def answer_of(application: Any, scope: Message, receive: Receive, members: Effect) -> Response:
    """The application's answer with other members in its JSON document."""
    heard: list[Message] = []

    async def hear(message: Message) -> None:
        heard.append(message)

    await application(scope, receive, hear)
    start, *parts = heard
    document = json.loads(b"".join(part.get("body", b"") for part in parts))
    kind = {"content-type": "application/x-amz-json-1.1"}
    return start["status"], kind, json.dumps({**document, **members}).encode()


def hang_up(client: tuple[str, int]) -> None:
    """Close the connection to a client, which ASGI has no word for."""
    for descriptor in Path("/dev/fd").iterdir():
        with (
            contextlib.suppress(OSError),
            socket.fromfd(int(descriptor.name), socket.AF_INET, socket.SOCK_STREAM) as connection,
        ):
            if connection.getpeername() == tuple(client):
                connection.shutdown(socket.SHUT_RDWR)


async def unheard(message: Message) -> None:
    """Takes an answer that nobody will get."""


async def body_of(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def respond(send: Send, response: Response) -> None:
    status, headers, body = response
    listed = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})


def request_text(method: str, target: str, headers: Mapping[str, str], body: bytes | str) -> str:
    """Such as `dynamodb:UpdateItem by <role's ARN> POST /? {"TableName": …}`."""
    content = body.decode("latin-1") if isinstance(body, bytes) else body
    operation = (
        headers.get("x-amz-target", "").rpartition(".")[2] or parse_qs(content).get("Action", [method])[0]
    )
    caller = iam_evaluator.request_caller_arn(dict(headers), {})
    return named(f"{service_of(headers)}:{operation} by {caller} {method} {unquote(target)} {content}")


def service_of(headers: Mapping[str, str]) -> str:
    """Out of the credential scope `<key>/<date>/<region>/<service>/aws4_request`."""
    scope = headers.get("authorization", "").partition("Credential=")[2].split("/")
    return scope[3] if len(scope) > 3 else "?"


def is_failure(effect: Effect) -> bool:
    return "code" in effect or bool(effect.get("drop"))


def refusal(headers: Mapping[str, str], effect: Effect) -> Response:
    """An error in the protocol of the service that was asked."""
    code, message = effect["code"], effect.get("message", "A fault that a test has set.")
    status = int(effect.get("status", 400))
    if "x-amz-target" in headers:
        body = json.dumps({"__type": code, "message": message})
        return status, {"content-type": "application/x-amz-json-1.0"}, body.encode()
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    body = error if service_of(headers) == "s3" else f"<ErrorResponse>{error}</ErrorResponse>"
    return status, {"content-type": "text/xml"}, body.encode()


def pause(effect: Effect) -> None:
    for tick in FAULTS.ticks(effect):
        time.sleep(tick)


# Requests inside the emulator: what Step Functions calls


def called(
    known: Callable[..., Response],
    handler: Any,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes | str,
    parameters: Any,
    **more: Any,
) -> Response:
    def do() -> Response:
        return known(handler, method, path, headers, body, parameters, **more)

    effect = FAULTS.strike("call", lambda: request_text(method, path, headers, body))
    if effect is None:
        return do()
    pause(effect)
    if not is_failure(effect):
        return do()
    if effect.get("afterwards"):
        do()
    # What Step Functions calls an answer that did not come.
    return refusal(headers, {"code": "SdkClientException", **effect})


def integrated(known: Callable[[str, Any], Any], resource: str, data: Mapping[str, Any]) -> Any:
    """The flow's own sns:publish, which takes a way of its own through the emulator."""
    if not resource.endswith("sns:publish"):
        return known(resource, data)
    effect = FAULTS.strike("call", lambda: f"sns:Publish by the flow {json.dumps(data)}")
    if effect is None:
        return known(resource, data)
    pause(effect)
    if effect.get("afterwards") or not is_failure(effect):
        answer = known(resource, data)
        if not is_failure(effect):
            return answer
    code = effect.get("code", "SdkClient").removesuffix("Exception")
    raise states._ExecutionError(
        f"SNS.{code}Exception", effect.get("message", "A fault that a test has set.")
    )


# Lambdas, events


def invoked(known: Callable[..., Any], function: Mapping[str, Any], event: Any, request_id: str) -> Any:
    name = (function.get("config") or function)["FunctionName"]
    effect = FAULTS.strike("function", lambda: named(f"{name} {json.dumps(event)}"))
    if effect is None:
        return known(function, event, request_id)
    pause(effect)
    if "clock" in effect:
        return known(function, {CLOCK: effect["clock"], "event": event}, request_id)
    if "error" not in effect:
        return known(function, event, request_id)
    if effect.get("afterwards"):
        known(function, event, request_id)
    message = effect.get("message", f"RequestId: {request_id} Error: a fault that a test has set")
    return {"body": {"errorType": effect["error"], "errorMessage": message}, "error": True, "log": message}


def delivered(
    known: Callable[..., None],
    target: Mapping[str, Any],
    event: Any,
    rule: Mapping[str, Any],
    view: Any = None,
) -> None:
    described = json.dumps(event, default=str)
    effect = FAULTS.strike("event", lambda: named(f"{described.replace(chr(92), '')} to {target.get('Arn')}"))
    if effect is None:
        known(target, event, rule, view)
        return
    if effect.get("drop"):
        return

    def deliver(copy: int) -> None:
        time.sleep(effect.get("seconds", 0) * copy)
        known(target, event, rule, view)

    copies = effect.get("copies", 1)
    late = 0 if "copies" in effect else 1  # the first of several copies is in time
    for copy in range(copies):
        in_background(deliver, copy + late)
