"""The filter policies of docs/operations.md, with the mails that they let through."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from fine_tuning.aws.mail import attributes_of
from fine_tuning.messages import Message
from tests.functions_data import REPOSITORY
from tests.unit.functions.test_messages import CASES

REGION = "us-east-1"
POLICIES = re.findall(
    r"^```json filter\n(.+?)^```",
    (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture
def sns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield boto3.client("sns", region_name=REGION)


def passed(sns: Any, policy: str, name: str = "all") -> list[Message]:
    """Which of the mails a queue with the policy receives."""
    sqs = boto3.client("sqs", region_name=REGION)
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name=name)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"FilterPolicy": policy})
    received = []
    for make in CASES.values():
        message = make()
        sns.publish(TopicArn=topic, Message=message.body, MessageAttributes=attributes_of(message))
        for delivered in sqs.receive_message(QueueUrl=queue).get("Messages", ()):
            received.append(message)
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=delivered["ReceiptHandle"])
    return received


def test_the_page_has_policies() -> None:
    assert len(POLICIES) == 2
    assert all(json.loads(policy) for policy in POLICIES)


def test_ends_and_problems_only(sns: Any) -> None:
    kinds = {message.kind for message in passed(sns, POLICIES[0])}
    assert kinds == {"completed", "failed", "stopped", "rejected", "image-failed"}


def test_what_a_person_must_see_to_and_dear_starts(sns: Any) -> None:
    cheap = {message.kind for message in passed(sns, POLICIES[1])}
    assert {"failed", "rejected", "image-missing", "image-failed"} <= cheap
    assert "completed" not in cheap
    everything = json.loads(POLICIES[1])
    everything["$or"][1]["cost_usd"] = [{"numeric": [">=", 1]}]
    dear = passed(sns, json.dumps(everything), "dear")
    assert [one for one in dear if one.kind == "started" and one.attributes["action"] == "none"]
