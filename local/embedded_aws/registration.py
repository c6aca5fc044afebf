"""What every emulated service needs: to be reachable, to emit events, to work in the background."""

import contextvars
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ministack import app
from ministack.core import iam_actions, responses, router
from ministack.core.concurrency import run_reentrant
from ministack.core.responses import get_account_id, get_region
from ministack.services import eventbridge

Response = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""
Operation = Callable[[dict[str, Any]], Response]

log = logging.getLogger("embedded_aws")


def json_response(body: Mapping[str, Any]) -> Response:
    """A success of the AWS JSON protocol."""
    response: Response = responses.json_response(body)
    return response


def error_response(code: str, message: str) -> Response:
    """A client's error of the AWS JSON protocol."""
    response: Response = responses.error_response_json(code, message, 400)
    return response


def register_json_service(name: str, target_prefix: str, operations: Mapping[str, Operation]) -> None:
    """Answer the AWS JSON protocol's `<target_prefix>.<operation>` with `operations`, and judge callers by IAM.

    `name` is the service's name in credential scopes, endpoints and IAM actions. An operation takes the
    request's body. A second registration of one name replaces the first.
    """

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes, query: object) -> Response:
        action = headers.get("x-amz-target", "").rpartition(".")[2]
        operation = operations.get(action)
        if operation is None:
            return error_response("UnknownOperationException", f"{name}:{action} is not emulated")
        return operation(json.loads(body or b"{}"))

    async def handle(*request: Any) -> Response:
        response: Response = await run_reentrant(answer, *request)
        return response

    TARGET_PREFIXES[name] = target_prefix
    app.SERVICE_HANDLERS[name] = handle
    router.SERVICE_PATTERNS[name] = {
        "target_prefixes": [target_prefix],
        "host_patterns": [rf"^{name}\."],
        "credential_scope": name,
    }
    iam_actions.SERVICE_TO_IAM_NAMESPACE[name] = name


def add_operation(service: str, name: str, operation: Operation) -> None:
    """Answer one more operation of a service that ministack has, in the AWS JSON protocol."""
    handle = app.SERVICE_HANDLERS[service]

    async def answer(
        method: str, path: str, headers: Mapping[str, str], body: bytes, query: object
    ) -> Response:
        if headers.get("x-amz-target", "").endswith(f".{name}"):
            return operation(json.loads(body))
        response: Response = await handle(method, path, headers, body, query)
        return response

    app.SERVICE_HANDLERS[service] = answer


def register_resource_arn(service: str, resource_of: Callable[[str, Mapping[str, Any]], str | None]) -> None:
    """Let `resource_of(operation, request)` name the ARN on which IAM judges a caller of `service`.

    None leaves it to ministack, which knows its own services' ARNs and answers "*" for others.
    """
    RESOURCE_ARNS[service] = resource_of


RESOURCE_ARNS: dict[str, Callable[[str, Mapping[str, Any]], str | None]] = {}


def emit_event(
    source: str, detail_type: str, detail: Mapping[str, Any], resources: Sequence[str] = ()
) -> None:
    """Put one event of an AWS service on the default bus."""
    entry = {
        "Source": source,
        "DetailType": detail_type,
        "Detail": json.dumps(detail, default=str),
        "Resources": list(resources),
    }
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)


class ServiceError(Exception):
    """An error that a service answered."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


TARGET_PREFIXES = {"states": "AWSStepFunctions", "sqs": "AmazonSQS", "codebuild": "CodeBuild_20161006"}


def call_service(service: str, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """One service calling another of the AWS JSON protocol inside the emulator, past IAM; raises ServiceError.

    Not from the event loop: it waits for the answer there. `in_background` is a way out of it.
    """
    headers = {
        "x-amz-target": f"{TARGET_PREFIXES[service]}.{operation}",
        "content-type": "application/x-amz-json-1.0",
        "host": f"{service}.{get_region()}.amazonaws.com",
        "authorization": f"AWS4-HMAC-SHA256 Credential=test/20260101/{get_region()}/{service}/aws4_request",
    }
    status, _, body = app.call_service_handler_sync(
        app.SERVICE_HANDLERS[service], "POST", "/", headers, json.dumps(request).encode(), {}
    )
    answer: dict[str, Any] = json.loads(body or b"{}")
    if status >= 400:
        raise ServiceError(
            str(answer.get("__type", status)).rpartition("#")[2], str(answer.get("message", answer))
        )
    return answer


def in_background(function: Callable[..., object], *arguments: object) -> threading.Thread:
    """Run it on a thread of its own, in the caller's account and region; what it raises is logged."""

    def run() -> None:
        try:
            function(*arguments)
        except Exception:  # nobody waits for this thread, so its log is all that would tell
            log.exception("%s failed in the background", getattr(function, "__qualname__", function))

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True)
    thread.start()
    return thread


def arn(service: str, rest: str) -> str:
    """`arn:aws:<service>:<region>:<account>:<rest>` of the request that is being answered."""
    return f"arn:aws:{service}:{get_region()}:{get_account_id()}:{rest}"


def run_at_shutdown(function: Callable[[], object]) -> None:
    """Have it called once when the server stops: everything that started a process ends it here."""
    AT_SHUTDOWN.append(function)


AT_SHUTDOWN: list[Callable[[], object]] = []
