"""EventBridge: targets that ministack lacks, permissions of deliveries, and rules' dead-letter queues."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ministack.core.arn import ArnParseError, parse_arn
from ministack.services import eventbridge, lambda_svc, stepfunctions

from local.embedded_aws.iam import role_denial, service_denial
from local.embedded_aws.patching import replace
from local.embedded_aws.registration import ServiceError, call_service, in_background

log = logging.getLogger("embedded_aws.event_bridge")

EVENTS = "events.amazonaws.com"


class UndeliverableError(Exception):
    """A target that cannot be invoked now or ever: the event goes to the target's dead-letter queue."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def install() -> None:
    known = replace(eventbridge, "_invoke_target", lambda *delivery: invoke_target(known, *delivery))


def invoke_target(
    known: Callable[..., None],
    target: Mapping[str, Any],
    event: Mapping[str, Any],
    rule: Mapping[str, Any],
    view: Any = None,
) -> None:
    """Deliver one matched event to one target of a rule, or to the target's dead-letter queue."""
    view = view or eventbridge._pattern_event_view(event)
    try:
        service = parse_arn(target["Arn"]).service
    except (ArnParseError, KeyError):
        service = ""
    deliver = DELIVERIES.get(service)
    if deliver is None:
        known(target, event, rule, view)
        return
    in_background(deliver_or_bury, deliver, target, rule, view)


def deliver_or_bury(
    deliver: Callable[[Mapping[str, Any], str, Mapping[str, Any]], None],
    target: Mapping[str, Any],
    rule: Mapping[str, Any],
    view: Any,
) -> None:
    try:
        deliver(target, payload(target, rule, view), rule)
    except (UndeliverableError, ServiceError) as failure:
        log.warning("rule %s: %s is not invoked: %s", rule.get("Name"), target["Arn"], failure)
        queue = (target.get("DeadLetterConfig") or {}).get("Arn")
        if queue:
            bury(queue, view, rule, target["Arn"], failure)


def payload(target: Mapping[str, Any], rule: Mapping[str, Any], view: Any) -> str:
    """What the target is sent: the event, a part of it, a constant, or what the transformer makes of it."""
    if target.get("InputTransformer"):
        return str(eventbridge._apply_input_transformer(target["InputTransformer"], rule, view))
    if target.get("Input"):
        return str(target["Input"])
    event = view.event_with_detail()
    if target.get("InputPath"):
        part = event
        for name in filter(None, target["InputPath"].lstrip("$").split(".")):
            part = part.get(name) if isinstance(part, dict) else None
        if part is not None:
            return json.dumps(part)
    return json.dumps(event)


def rule_arn(rule: Mapping[str, Any]) -> str:
    return str(rule.get("Arn") or eventbridge._rule_arn(rule["Name"], rule.get("EventBusName", "default")))


def as_role(target: Mapping[str, Any], action: str) -> None:
    """A target that EventBridge invokes with the role that the target names."""
    if not target.get("RoleArn"):
        raise UndeliverableError("NO_PERMISSIONS", f"the target {target['Arn']} names no role")
    denial = role_denial(target["RoleArn"], action, target["Arn"], assumed_by=EVENTS)
    if denial:
        raise UndeliverableError("NO_PERMISSIONS", denial)


def as_service(target: Mapping[str, Any], action: str, rule: Mapping[str, Any]) -> None:
    """A target whose own policy lets EventBridge in."""
    denial = service_denial(EVENTS, action, target["Arn"], rule_arn(rule))
    if denial:
        raise UndeliverableError("NO_PERMISSIONS", denial)


def to_function(target: Mapping[str, Any], event: str, rule: Mapping[str, Any]) -> None:
    """Lambda repeats a failing asynchronous invocation itself, and has a destination of its own for it."""
    function, configuration, _ = lambda_svc._get_func_record_for_ref(target["Arn"])
    if not function or not configuration:
        raise UndeliverableError("RESOURCE_NOT_FOUND", f"the function {target['Arn']} does not exist")
    as_service(target, "lambda:InvokeFunction", rule)
    lambda_svc.invoke_async_with_retry(function, json.loads(event))


def to_state_machine(target: Mapping[str, Any], event: str, rule: Mapping[str, Any]) -> None:
    if stepfunctions._resolve_state_machine_arn(target["Arn"]) is None:
        raise UndeliverableError("RESOURCE_NOT_FOUND", f"the state machine {target['Arn']} does not exist")
    as_role(target, "states:StartExecution")
    call_service("states", "StartExecution", {"stateMachineArn": target["Arn"], "input": event})


def to_build_project(target: Mapping[str, Any], event: str, rule: Mapping[str, Any]) -> None:
    """The event (mostly a transformed one) gives the build's own parameters, such as sourceVersion."""
    as_role(target, "codebuild:StartBuild")
    parameters = {name: value for name, value in json.loads(event).items() if name in BUILD_PARAMETERS}
    call_service(
        "codebuild", "StartBuild", {**parameters, "projectName": target["Arn"].partition(":project/")[2]}
    )


def to_pipeline(target: Mapping[str, Any], event: str, rule: Mapping[str, Any]) -> None:
    as_role(target, "sagemaker:StartPipelineExecution")
    parameters = (target.get("SageMakerPipelineParameters") or {}).get("PipelineParameterList", [])
    call_service(
        "sagemaker",
        "StartPipelineExecution",
        {"PipelineName": target["Arn"].rpartition("/")[2], "PipelineParameters": parameters},
    )


def to_queue(target: Mapping[str, Any], event: str, rule: Mapping[str, Any]) -> None:
    as_service(target, "sqs:SendMessage", rule)
    eventbridge._dispatch_to_sqs(parse_arn(target["Arn"]), event, target.get("SqsParameters") or {})


def to_topic(target: Mapping[str, Any], event: str, rule: Mapping[str, Any]) -> None:
    as_service(target, "sns:Publish", rule)
    eventbridge._dispatch_to_sns(target["Arn"], event)


DELIVERIES: Mapping[str, Callable[[Mapping[str, Any], str, Mapping[str, Any]], None]] = {
    "lambda": to_function,
    "states": to_state_machine,
    "codebuild": to_build_project,
    "sagemaker": to_pipeline,
    "sqs": to_queue,
    "sns": to_topic,
}

BUILD_PARAMETERS = frozenset(
    {"sourceVersion", "environmentVariablesOverride", "buildspecOverride", "artifactsOverride"}
)


def bury(
    queue: str, view: Any, rule: Mapping[str, Any], target: str, failure: UndeliverableError | ServiceError
) -> None:
    """Send the original event to the dead-letter queue, with what went wrong as message attributes."""
    denial = service_denial(EVENTS, "sqs:SendMessage", queue, rule_arn(rule))
    if denial:
        log.error("the event is lost: %s", denial)
        return
    described = {
        "RULE_ARN": rule_arn(rule),
        "TARGET_ARN": target,
        "ERROR_CODE": failure.code,
        "ERROR_MESSAGE": str(failure),
    }
    call_service(
        "sqs",
        "SendMessage",
        {
            "QueueUrl": call_service("sqs", "GetQueueUrl", {"QueueName": queue.rpartition(":")[2]})[
                "QueueUrl"
            ],
            "MessageBody": json.dumps(view.event_with_detail()),
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value} for name, value in described.items()
            },
        },
    )
