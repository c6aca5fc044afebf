"""Callers are judged on the ARNs of the service authorization reference."""

import json
from typing import Any

import pytest

from tests.embedded_aws.running import ACCOUNT, REGION, RunningEmbeddedAws, allow

CALL = """\
import boto3
def handler(event, context):
    try:
        getattr(boto3.client(event["service"]), event["operation"])(**event["request"])
    except Exception as error:
        return str(error)
"""


@pytest.fixture
def call(aws: RunningEmbeddedAws, unique: str) -> Any:
    """The error that a call raises when its role has the one statement; None when it may."""

    def try_out(statement: dict[str, Any], service: str, operation: str, **request: Any) -> str | None:
        role = aws.create_role(unique, "lambda.amazonaws.com", statement)
        aws.create_function(unique, CALL, role)
        event = {"service": service, "operation": operation, "request": request}
        answer = aws.client("lambda").invoke(FunctionName=unique, Payload=json.dumps(event))
        error = json.loads(answer["Payload"].read())
        return str(error) if error else None

    return try_out


def arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}"


def test_a_log_stream_is_created_by_who_may_use_the_streams_of_the_group(
    aws: RunningEmbeddedAws, call: Any, unique: str
) -> None:
    """`!GetAtt LogGroup.Arn` ends in `:*`, and is what policies name."""
    aws.client("logs").create_log_group(logGroupName=unique)
    may = allow("logs:CreateLogStream", arn("logs", f"log-group:{unique}:*"))
    assert call(may, "logs", "create_log_stream", logGroupName=unique, logStreamName="s") is None


def test_a_log_stream_of_another_group_is_denied(aws: RunningEmbeddedAws, call: Any, unique: str) -> None:
    aws.client("logs").create_log_group(logGroupName=unique)
    may = allow("logs:CreateLogStream", arn("logs", f"log-group:{unique}-other:*"))
    error = call(may, "logs", "create_log_stream", logGroupName=unique, logStreamName="s")
    assert "is not authorized to perform: logs:CreateLogStream" in error


@pytest.mark.parametrize(("project", "allowed"), [("images", True), ("others", False)])
def test_builds_are_read_by_who_may_read_their_project(call: Any, project: str, allowed: bool) -> None:
    may = allow("codebuild:BatchGetBuilds", arn("codebuild", f"project/{project}"))
    error = call(may, "codebuild", "batch_get_builds", ids=["images:0123"])
    assert (error is None) == allowed, error


@pytest.mark.parametrize(("repository", "allowed"), [("images", True), ("others", False)])
def test_a_repository_is_described_by_who_may_describe_it(
    aws: RunningEmbeddedAws, call: Any, unique: str, repository: str, allowed: bool
) -> None:
    name = f"{unique}/images"
    aws.client("ecr").create_repository(repositoryName=name)
    may = allow("ecr:DescribeRepositories", arn("ecr", f"repository/{unique}/{repository}"))
    error = call(may, "ecr", "describe_repositories", repositoryNames=[name])
    assert (error is None) == allowed, error


@pytest.mark.parametrize(("namespace", "allowed"), [("/aws/sagemaker/TrainingJobs", True), ("Other", False)])
def test_metrics_are_put_by_who_may_use_their_namespace(call: Any, namespace: str, allowed: bool) -> None:
    """PutMetricData knows no resources; the condition key cloudwatch:namespace is what can be named."""
    condition = {"StringLike": {"cloudwatch:namespace": "/aws/sagemaker/TrainingJobs*"}}
    may = {**allow("cloudwatch:PutMetricData"), "Condition": condition}
    metric = {"MetricName": "train:loss", "Value": 0.1}
    error = call(may, "cloudwatch", "put_metric_data", Namespace=namespace, MetricData=[metric])
    assert (error is None) == allowed, error
