"""What a state machine calls, it calls with its own role."""

from typing import Any

import pytest

from tests.embedded_aws.flows import Flows, task
from tests.embedded_aws.running import RunningEmbeddedAws, allow

PUBLISH = "arn:aws:states:::sns:publish"
START_PIPELINE = "arn:aws:states:::aws-sdk:sagemaker:startPipelineExecution"


@pytest.fixture
def topic(aws: RunningEmbeddedAws, unique: str) -> str:
    arn = aws.client("sns").create_topic(Name=unique)["TopicArn"]
    aws.client("sns").subscribe(TopicArn=arn, Protocol="email", Endpoint=f"{unique}@example.com")
    return str(arn)


def publish(topic: str, **more: Any) -> dict[str, Any]:
    return {"Type": "Task", "Resource": PUBLISH, "Arguments": {"TopicArn": topic, "Message": "hello", **more}}


def test_sns_publish_delivers_subject_message_and_attributes(
    aws: RunningEmbeddedAws, flows: Flows, topic: str, unique: str
) -> None:
    attributes = {"kind": {"DataType": "String", "StringValue": "failed"}}
    output = flows.output(Tell=publish(topic, Subject="Run cats", MessageAttributes=attributes))
    [mail] = [mail for mail in aws.mails() if mail["To"] == f"{unique}@example.com"]
    assert (mail["Subject"], mail["X-Attribute-kind"], mail.get_content().strip()) == (
        "Run cats",
        "failed",
        "hello",
    )
    assert output["MessageId"] in mail["Message-ID"]


def test_an_sns_error_reaches_catch_by_its_name(flows: Flows, topic: str) -> None:
    assert flows.run(States={"Tell": publish(f"{topic}-missing")})["error"] == "SNS.NotFoundException"


def test_a_missing_pipeline_is_sagemakers_resource_not_found(flows: Flows) -> None:
    state = {"Type": "Task", "Resource": START_PIPELINE, "Arguments": {"PipelineName": "no-such-pipeline"}}
    assert flows.run(States={"Start": state})["error"] == "SageMaker.ResourceNotFoundException"


@pytest.mark.parametrize(
    ("states", "error", "action"),
    [
        ({"Echo": task("flow-echo")}, "Lambda.AWSLambdaException", "lambda:InvokeFunction"),
        (
            {
                "Echo": task(
                    "flow-echo", {}, "arn:aws:states:::lambda:invoke.waitForTaskToken", TimeoutSeconds=5
                )
            },
            "Lambda.AWSLambdaException",
            "lambda:InvokeFunction",
        ),
        (
            {"Tell": publish("arn:aws:sns:us-east-1:000000000000:t")},
            "SNS.AuthorizationErrorException",
            "sns:Publish",
        ),
        (
            {"Start": {"Type": "Task", "Resource": START_PIPELINE, "Arguments": {"PipelineName": "p"}}},
            "SageMaker.SageMakerException",
            "sagemaker:StartPipelineExecution",
        ),
    ],
)
def test_a_call_that_the_role_does_not_allow_fails_and_says_what_is_missing(
    aws: RunningEmbeddedAws, flows: Flows, unique: str, states: dict[str, Any], error: str, action: str
) -> None:
    role = aws.create_role(unique, "states.amazonaws.com", allow("logs:*"))
    ended = flows.run(role=role, States=states)
    assert ended["error"] == error
    assert f"is not authorized to perform: {action}" in ended["cause"]


def test_a_role_is_held_to_the_resources_that_it_names(
    aws: RunningEmbeddedAws, flows: Flows, unique: str
) -> None:
    role = aws.create_role(
        unique, "states.amazonaws.com", allow("lambda:InvokeFunction", flows.functions["flow-echo"])
    )
    assert flows.run(role=role, States={"Echo": task("flow-echo")})["status"] == "SUCCEEDED"
    assert flows.run(role=role, States={"Sleep": task("flow-sleep", {"seconds": 0})})["status"] == "FAILED"


def test_a_role_that_does_not_trust_step_functions_serves_nobody(
    aws: RunningEmbeddedAws, flows: Flows, unique: str
) -> None:
    role = aws.create_role(unique, "lambda.amazonaws.com", allow("*"))
    ended = flows.run(role=role, States={"Echo": task("flow-echo")})
    assert "states.amazonaws.com is not authorized to assume the role" in ended["cause"]
