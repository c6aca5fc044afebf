"""Faults strike what they match, as often as they say, and nothing else."""

from __future__ import annotations

import json
import time
import urllib.error
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionClosedError as ClosedError

from tests.embedded_aws.flows import Flows, task
from tests.embedded_aws.running import RunningEmbeddedAws, wait_for
from tests.embedded_aws.setting_faults import Fault, ask, faults, struck
from tests.embedded_aws.training import Events, Training

EVENT = {"Source": "tests", "DetailType": "Fault Test"}


@pytest.fixture
def training(aws: RunningEmbeddedAws, unique: str) -> Training:
    made = Training(aws, unique)
    made.put("data/a.txt")
    return made


def call(*matching: str, times: int = 1, skip: int = 0, **effect: Any) -> Fault:
    return Fault("call", matching, effect, skip, times)


def test_a_request_is_refused_as_often_as_was_asked(aws: RunningEmbeddedAws, unique: str) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=unique)
    with faults(
        aws.endpoint, call("s3:PUT", f"/{unique}/a", code="SlowDown", status=503, skip=1, times=2)
    ) as (name,):
        s3.put_object(Bucket=unique, Key="a", Body=b"1")
        for _ in range(2):
            with pytest.raises(ClientError) as refused:
                s3.put_object(Bucket=unique, Key="a", Body=b"2")
            assert refused.value.response["Error"]["Code"] == "SlowDown"
            assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        s3.put_object(Bucket=unique, Key="b", Body=b"other keys are spared")
        assert s3.get_object(Bucket=unique, Key="a")["Body"].read() == b"1"
        s3.put_object(Bucket=unique, Key="a", Body=b"3")
        assert struck(aws.endpoint, name) == 2


@pytest.mark.parametrize(("afterwards", "expected"), [(True, {"run_id"}), (False, set())])
def test_a_refused_request_was_carried_out_or_not(
    aws: RunningEmbeddedAws, unique: str, afterwards: bool, expected: set[str]
) -> None:
    dynamodb = aws.client("dynamodb")
    table = f"table-{unique}-{afterwards}"
    key = "run_id"
    dynamodb.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
    )
    fault = call("dynamodb:PutItem", table, code="InternalServerError", status=500, afterwards=afterwards)
    with faults(aws.endpoint, fault), pytest.raises(ClientError, match="InternalServerError"):
        dynamodb.put_item(TableName=table, Item={key: {"S": "x"}})
    assert {name for item in dynamodb.scan(TableName=table)["Items"] for name in item} == expected


def test_a_dropped_connection_has_no_answer(aws: RunningEmbeddedAws, unique: str) -> None:
    sns = aws.client("sns")
    with (
        faults(aws.endpoint, call("sns:CreateTopic", unique, drop=True, afterwards=True)),
        pytest.raises((ClosedError, HTTPClientError)),
    ):
        sns.create_topic(Name=unique)
    topics = [topic["TopicArn"].rpartition(":")[2] for topic in sns.list_topics()["Topics"]]
    assert unique in topics


def test_a_caller_is_told_apart(aws: RunningEmbeddedAws, flows: Flows) -> None:
    """Only the function is struck, by its role's name; the account's root is not."""
    sqs = aws.client("sqs")
    queue = sqs.create_queue(QueueName="faults-caller")["QueueUrl"]
    fault = call("sqs:SendMessage", "/flow-functions/", "faults-caller", code="Throttled", times=9)
    machine = {"Hand": task("flow-hand-over", {"queue": queue})}
    with faults(aws.endpoint, fault):
        sqs.send_message(QueueUrl=queue, MessageBody="x")
        assert flows.run(States=machine)["status"] == "FAILED"
    assert flows.run(States=machine)["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    "error", ["Lambda.TooManyRequestsException", "Sandbox.Timedout", "Runtime.ExitError"]
)
@pytest.mark.parametrize("afterwards", [False, True])
def test_a_lambda_fails_by_itself(
    aws: RunningEmbeddedAws, flows: Flows, error: str, afterwards: bool
) -> None:
    queue = aws.client("sqs").create_queue(QueueName="faults-lambda")["QueueUrl"]
    fault = Fault("function", ("flow-hand-over", "faults-lambda"), {"error": error, "afterwards": afterwards})
    with faults(aws.endpoint, fault):
        ended = flows.run(States={"Hand": task("flow-hand-over", {"queue": queue})})
    assert (ended["status"], ended["error"]) == ("FAILED", error)
    received = aws.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    for message in received:
        aws.client("sqs").delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert len(received) == int(afterwards)


def test_a_lambdas_own_clock_is_off_for_one_invocation(aws: RunningEmbeddedAws, flows: Flows) -> None:
    payload = {"name": "faults-clock"}

    def told() -> float:
        before = time.time()
        answer = flows.output(Tell=task("flow-clock", payload))
        assert answer["name"] == "faults-clock"
        assert answer["now"] == pytest.approx(answer["time"], abs=1)
        assert answer["left"] > 0  # the deadline is by the same clock
        return float(answer["time"]) - before

    with faults(aws.endpoint, Fault("function", ("flow-clock", "faults-clock"), {"clock": 3600})):
        assert told() == pytest.approx(3600, abs=20)
        assert told() == pytest.approx(0, abs=20)
    with faults(aws.endpoint, Fault("function", ("flow-clock", "faults-clock"), {"clock": -3600})):
        assert told() == pytest.approx(-3600, abs=20)


def test_what_a_fault_holds_goes_on_when_it_is_removed(aws: RunningEmbeddedAws, flows: Flows) -> None:
    fault = Fault("function", ("flow-echo", "faults-held"), {"seconds": 600})
    with faults(aws.endpoint, fault) as (name,):
        execution = flows.start(States={"Echo": task("flow-echo", {"name": "faults-held"})})
        wait_for(lambda: struck(aws.endpoint, name))
        assert flows.client.describe_execution(executionArn=execution)["status"] == "RUNNING"
    assert flows.ended(execution)["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        ({"drop": True}, ["two"]),
        ({"copies": 3}, ["one", "one", "one", "two"]),
        ({"seconds": 1}, ["two", "one"]),
    ],
    ids=["lost", "repeated", "late"],
)
def test_an_event_is_lost_repeated_or_late(
    aws: RunningEmbeddedAws, unique: str, effect: dict[str, Any], expected: list[str]
) -> None:
    queue = Events(aws, unique, "Fault Test")
    events = aws.client("events")
    with faults(aws.endpoint, Fault("event", ("Fault Test", "one", f"events-{unique}"), effect)):
        # At once: between two requests the first event's time could pass.
        events.put_events(
            Entries=[{**EVENT, "Detail": json.dumps({"name": name})} for name in ("one", "two")]
        )

        def names() -> list[str]:
            return [event["detail"]["name"] for event in queue.received()]

        wait_for(lambda: len(names()) >= len(expected))
    assert sorted(names()) == sorted(expected)
    if "seconds" in effect:
        assert names() == expected


@pytest.mark.parametrize(
    ("effect", "status", "reason"),
    [
        ({"fail": "InternalServerError: try again"}, "Failed", "InternalServerError: try again"),
        ({"stop": "MaxWaitTimeExceeded"}, "Stopped", None),
        ({"complete": True}, "Completed", None),
    ],
    ids=["failed", "stopped", "empty-handed"],
)
def test_a_job_ends_without_a_training(
    aws: RunningEmbeddedAws,
    training: Training,
    tmp_path: Path,
    effect: dict[str, Any],
    status: str,
    reason: str | None,
) -> None:
    image = training.image("#!/bin/sh\nexit 1\n", tmp_path)
    with faults(aws.endpoint, Fault("job", (training.name,), effect)):
        job = training.run(training.request(training.name, image))
    assert (job["TrainingJobStatus"], job.get("FailureReason")) == (status, reason)
    assert job["ModelArtifacts"] == {}
    assert "BillableTimeInSeconds" not in job


@pytest.mark.parametrize(("seconds", "status"), [(600, "Stopped"), (1, "Completed")])
def test_a_job_waits_for_its_instance_until_it_comes_or_somebody_stops_it(
    aws: RunningEmbeddedAws, training: Training, tmp_path: Path, seconds: int, status: str
) -> None:
    training.put("data/x")
    image = training.image("#!/bin/sh\n", tmp_path)
    with faults(aws.endpoint, Fault("job", (training.name,), {"pending": seconds})):
        training.sagemaker.create_training_job(**training.request(training.name, image))
        if status == "Stopped":
            wait_for(lambda: training.describe(training.name)["SecondaryStatus"] == "Pending")
            training.sagemaker.stop_training_job(TrainingJobName=training.name)
        job = training.ended(training.name)
    assert job["TrainingJobStatus"] == status
    (pending,) = (each for each in job["SecondaryStatusTransitions"] if each["Status"] == "Pending")
    if status == "Stopped":
        assert "TrainingStartTime" not in job
    else:
        assert job["TrainingStartTime"] - pending["StartTime"] >= timedelta(seconds=0.99 * seconds)


def test_a_job_is_refused(aws: RunningEmbeddedAws, training: Training, tmp_path: Path) -> None:
    request = training.request(training.name, training.image("#!/bin/sh\n", tmp_path))
    effect = {"code": "ResourceLimitExceeded", "message": "The account-level service limit is 0."}
    with (
        faults(aws.endpoint, Fault("job-request", (training.name,), effect)),
        pytest.raises(ClientError, match="account-level service limit"),
    ):
        training.sagemaker.create_training_job(**request)


@pytest.mark.parametrize(
    "document",
    [
        {"at": "nowhere", "matching": ["x"], "effect": {"drop": True}},
        {"at": "call", "matching": [], "effect": {"drop": True}},
        {"at": "call", "matching": ["x"], "effect": {"copies": 2}},
        {"at": "event", "matching": ["x"], "effect": {"drop": True}, "tims": 2},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(aws: RunningEmbeddedAws, document: object) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(aws.endpoint, "PUT", "senseless", document)
    assert refused.value.code == 400
    refused.value.close()
    assert "senseless" not in str(ask(aws.endpoint, "GET"))


def test_an_answer_has_other_members(aws: RunningEmbeddedAws, unique: str) -> None:
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName=unique)["QueueUrl"]
    with faults(aws.endpoint, call("sqs:GetQueueUrl", unique, answer={"QueueUrl": "elsewhere"})):
        assert sqs.get_queue_url(QueueName=unique)["QueueUrl"] == "elsewhere"
    assert sqs.get_queue_url(QueueName=unique)["QueueUrl"] == url
