"""The functions on moto: a deployment's bucket, tables, topic and the rest, within this process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from fine_tuning.aws import deployment, mail_pace, sdk
from tests.functions_data import BUCKET

REGION = "us-east-1"
ACCOUNT = "123456789012"  # moto's own
STATE_MACHINE = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:kohya-ss-fine-tuning"
ENVIRONMENT = {
    "AWS_DEFAULT_REGION": REGION,
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "testing",
    "POWERTOOLS_SERVICE_NAME": "tests",
    "POWERTOOLS_METRICS_NAMESPACE": "tests",
    "POWERTOOLS_TRACE_DISABLED": "true",
    "BUCKET_NAME": BUCKET,
    "RUN_TABLE_NAME": "runs",
    "IDEMPOTENCY_TABLE_NAME": "idempotency",
    "STATE_MACHINE_ARN": STATE_MACHINE,
    "PIPELINE_NAME": "kohya-ss-fine-tuning-pipeline",
    "IMAGE_REPOSITORY_NAME": "kohya-ss-fine-tuning",
    "SOURCE_REPOSITORY_NAME": "kohya-ss-fine-tuning-container-image",
    "BUILD_PROJECT_NAME": "kohya-ss-fine-tuning-build-container",
    "KOHYA_VERSION": "v25.2.2",
    "INSTANCE_TYPES": "ml.g5.8xlarge",
    "TRAINING_VOLUME_GB": "50",
    "MAX_TRAINING_RUNTIME_SECONDS": "86400",
    "MAX_COST_USD": "",
    "CAPACITY_TRIES": "3",
    "MAX_RUNS_IN_FLIGHT": "5",
    "STALL_SECONDS": "3600",
    "PROGRESS_MILESTONES": "",
    "CAPACITY_WAIT_SECONDS": "300",
    "SETTLE_SECONDS": "0",
    "UPLOAD_WAIT_SECONDS": "60",
    "SHARD_SIZE": "4",
}

# Powertools reads these when a handler is imported, which is before any fixture runs.
os.environ.update({name: value for name, value in ENVIRONMENT.items() if name.startswith("POWERTOOLS_")})


@dataclass
class Stack:
    """Clients of the mocked account, and a person's view of it."""

    s3: Any
    dynamodb: Any
    sqs: Any
    step_functions: Any
    inbox: str
    context: Any = field(
        default_factory=lambda: SimpleNamespace(
            function_name="f",
            memory_limit_in_mb=512,
            invoked_function_arn="arn:f",
            aws_request_id="r",
            get_remaining_time_in_millis=lambda: 30_000,
        )
    )

    def put(self, key: str, content: bytes) -> str:
        """The version id."""
        version: str = self.s3.put_object(Bucket=BUCKET, Key=key, Body=content)["VersionId"]
        return version

    def read(self, key: str) -> bytes:
        content: bytes = self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def keys(self, prefix: str = "") -> list[str]:
        return [o["Key"] for o in self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())]

    def mails(self) -> list[dict[str, Any]]:
        """Every mail since the last look: SNS's own document with Subject, Message and MessageAttributes."""
        found: list[dict[str, Any]] = []
        while messages := self.sqs.receive_message(QueueUrl=self.inbox, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in messages:
                found.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.inbox, ReceiptHandle=message["ReceiptHandle"])
        return found

    def executions(self) -> list[str]:
        listed = self.step_functions.list_executions(stateMachineArn=STATE_MACHINE)["executions"]
        return [execution["name"] for execution in listed]

    def record(self, run_id: str) -> dict[str, Any]:
        return deployment.deployment(None).records.find(run_id)


def _sleep_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for its turn to mail finds that the time has passed."""
    slept = 0.0

    def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds

    monkeypatch.setattr(mail_pace, "time", lambda: time.time() + slept)
    monkeypatch.setattr(mail_pace, "sleep", sleep)


@pytest.fixture(scope="session", autouse=True)
def _one_loader() -> Iterator[None]:
    """moto begins each test with a session of its own, which would read and parse the services' models anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.session.create_loader))
        yield


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    _sleep_quickly(monkeypatch)
    deployment.forget()
    with mock_aws():
        yield _deploy(monkeypatch)
    deployment.forget()


def _deploy(monkeypatch: pytest.MonkeyPatch) -> Stack:
    s3, dynamodb, sns, sqs = (
        boto3.client(name, region_name=REGION) for name in ("s3", "dynamodb", "sns", "sqs")
    )
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    _table(
        dynamodb,
        "runs",
        "run_id",
        {"by-creation": ["record_type", "created_at"], "by-pipeline-execution": ["pipeline_execution_id"]},
    )
    _table(dynamodb, "idempotency", "id")
    topic = sns.create_topic(Name="kohya-ss-fine-tuning")["TopicArn"]
    inbox = sqs.create_queue(QueueName="inbox")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=inbox, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    monkeypatch.setenv("TOPIC_ARN", topic)
    step_functions = boto3.client("stepfunctions", region_name=REGION)
    step_functions.create_state_machine(
        name="kohya-ss-fine-tuning",
        definition='{"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 1, "End": true}}}',
        roleArn=f"arn:aws:iam::{ACCOUNT}:role/flow",
    )
    return Stack(s3, dynamodb, sqs, step_functions, inbox)


def _table(dynamodb: Any, name: str, key: str, indexes: Mapping[str, Sequence[str]] | None = None) -> None:
    """`indexes`: name → partition key and, where there is one, sort key."""
    indexes = indexes or {}
    attributes = [key, *(attribute for keys in indexes.values() for attribute in keys)]
    secondary = [
        {
            "IndexName": index,
            "KeySchema": [
                {"AttributeName": attribute, "KeyType": kind}
                for attribute, kind in zip(keys, ("HASH", "RANGE"), strict=False)
            ],
            "Projection": {"ProjectionType": "ALL"},
        }
        for index, keys in indexes.items()
    ]
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": one, "AttributeType": "S"} for one in attributes],
        **({"GlobalSecondaryIndexes": secondary} if secondary else {}),
    )


@pytest.fixture
def at(stack: Stack) -> Callable[[datetime], None]:
    """Sets the functions' clock."""

    now = [datetime.now(UTC)]

    def set_clock(moment: datetime) -> None:
        now[0] = moment
        deployment.deployment(None).clock = lambda: now[0]  # services keep the clock that they were made with

    set_clock(datetime.now(UTC))
    return set_clock


@pytest.fixture
def sagemaker(stack: Stack) -> Iterator[Stubber]:
    with Stubber(sdk.client("sagemaker")) as stubber:
        yield stubber
