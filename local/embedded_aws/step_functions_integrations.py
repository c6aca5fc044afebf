"""What a state machine calls: with its own role, and with the error names that are documented."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from ministack.services import sns
from ministack.services import stepfunctions as states

from local.embedded_aws.iam import role_denial
from local.embedded_aws.patching import replace
from local.embedded_aws.registration import arn
from local.embedded_aws.step_functions_tasks import current_execution

Arguments = Mapping[str, Any]


def install() -> None:
    known = replace(states, "_invoke_resource", lambda resource, data: guarded(known, resource, data))
    states._SERVICE_DISPATCH["arn:aws:states:::sns:publish"] = publish
    states._AWS_SDK_SERVICE_MAP["sagemaker"] = {"target_prefix": "SageMaker", "protocol": "json"}
    states._AWS_SDK_ERROR_PREFIX["sagemaker"] = "SageMaker"
    # The names are those of the SDK for Java, which appends Exception and knows no ValidationException of
    # SageMaker.
    states._AWS_SDK_ERROR_CODE_OVERRIDES["sagemaker"] = {
        "ResourceNotFound": "ResourceNotFoundException",
        "ResourceInUse": "ResourceInUseException",
        "ResourceLimitExceeded": "ResourceLimitExceededException",
        "ValidationException": "SageMakerException",
    }


def guarded(known: Callable[[str, Arguments], Any], resource: str, data: Arguments) -> Any:
    """Call the integration if the state machine's role may, else fail the task as AWS would."""
    execution = current_execution.get()
    machine = states._state_machines.get(execution["stateMachineArn"]) if execution else None
    if machine is not None:
        action, on, error = permission(resource, data)
        denial = role_denial(machine["roleArn"], action, on, assumed_by="states.amazonaws.com")
        if denial:
            raise states._ExecutionError(error, denial)
    return known(resource, data)


def permission(resource: str, data: Arguments) -> tuple[str, str, str]:
    """Action and ARN that an integration needs, and the error that its absence raises.

    An integration that is not listed is judged on "*", so that it needs a line here rather than slipping through.
    """
    service, _, operation = resource.partition(":::")[2].removeprefix("aws-sdk:").partition(":")
    if service == "lambda":
        name = str(data.get("FunctionName", ""))
        function = name if name.startswith("arn:") else arn("lambda", f"function:{name}")
        return "lambda:InvokeFunction", function, "Lambda.AWSLambdaException"
    action = f"{service}:{operation[:1].upper()}{operation[1:]}"
    if service == "sns":
        return action, str(data.get("TopicArn", "*")), "SNS.AuthorizationErrorException"
    if service == "sagemaker":
        name = str(data.get("PipelineName", "")).rpartition("/")[2]
        on = data.get("PipelineExecutionArn") or arn("sagemaker", f"pipeline/{name}")
        return action, str(on), "SageMaker.SageMakerException"
    return action, "*", "States.TaskFailed"


def publish(resource: str, data: Arguments) -> dict[str, str]:
    """sns:publish, with MessageAttributes."""
    request = {name: value for name, value in data.items() if name != "MessageAttributes"}
    for number, (name, attribute) in enumerate((data.get("MessageAttributes") or {}).items(), 1):
        request[f"MessageAttributes.entry.{number}.Name"] = name
        for field, value in attribute.items():
            request[f"MessageAttributes.entry.{number}.Value.{field}"] = value
    status, _, body = sns._publish(request)
    text = body.decode() if isinstance(body, bytes) else body
    if status >= 400:
        code = element("Code", text).removesuffix("Exception")
        raise states._ExecutionError(f"SNS.{code}Exception", element("Message", text))
    return {"MessageId": element("MessageId", text)}


def element(name: str, text: str) -> str:
    found = re.search(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return found[1] if found else ""
