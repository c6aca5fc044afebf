"""Events that are repeated, strange or none of this stack's business."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.end_to_end.journey import Stack, dataset, quick_manifest


def _dropped(bucket: str, key: str, version: str) -> dict[str, Any]:
    detail = {
        "version": "0",
        "bucket": {"name": bucket},
        "object": {"key": key, "size": 1, "etag": "0" * 32, "version-id": version, "sequencer": "0"},
        "reason": "PutObject",
    }
    return {"Source": "aws.s3", "DetailType": "Object Created", "Detail": json.dumps(detail)}


def _invoke(stack: Stack, function: str, event: dict[str, Any]) -> None:
    """Invokes a function as EventBridge does: asynchronously, with the event's envelope."""
    functions = stack.client("lambda").list_functions()["Functions"]
    project = stack.outputs["StateMachineArn"].split(":")[-1]
    (name,) = [
        each["FunctionName"]
        for each in functions
        if function in each["FunctionName"]
        and each["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] == project
    ]
    stack.client("lambda").invoke(
        FunctionName=name, InvocationType="Event", Payload=json.dumps(event).encode()
    )


def _envelope(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "0",
        "source": entry["Source"],
        "detail-type": entry["DetailType"],
        "account": "000000000000",
        "time": "2026-01-01T00:00:00Z",
        "region": "us-east-1",
        "resources": [],
        "detail": json.loads(entry["Detail"]),
    }


def _executions(stack: Stack) -> set[str]:
    machine = stack.outputs["StateMachineArn"]
    listed = stack.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"]
    return {each["name"] for each in listed}


def test_one_event_delivered_three_times_is_one_run_and_one_set_of_mails(stack: Stack) -> None:
    prefix = stack.drop("thrice", dataset(3), quick_manifest())
    version = next(each.split("@")[1] for each in stack.versions(prefix) if "manifest.json" in each)
    for _ in range(2):
        _invoke(
            stack, "ValidateManifest", _envelope(_dropped(stack.bucket, prefix + "manifest.json", version))
        )
    record = stack.record(prefix)
    assert record["status"] == "COMPLETED", record
    _invoke(stack, "ValidateManifest", _envelope(_dropped(stack.bucket, prefix + "manifest.json", version)))
    time.sleep(2)
    assert len(stack.records(prefix)) == 1
    assert len(stack.training_jobs(record["run_id"])) == 1
    assert sorted(mail["X-Attribute-kind"] for mail in stack.mails(record["run_id"])) == [
        "completed",
        "started",
    ]


def test_a_bad_manifest_delivered_three_times_is_one_mail(stack: Stack) -> None:
    prefix = stack.drop("thrice-bad", {}, b"no manifest")
    version = next(each.split("@")[1] for each in stack.versions(prefix) if "manifest.json" in each)
    for _ in range(2):
        _invoke(
            stack, "ValidateManifest", _envelope(_dropped(stack.bucket, prefix + "manifest.json", version))
        )
    record = stack.record(prefix)
    time.sleep(3)
    assert len(stack.mails(record["run_id"])) == 1


def test_a_manifest_among_the_runs_is_ignored(stack: Stack) -> None:
    before = _executions(stack), len(stack.mails_of_runs())
    folders = ("runs/x/", "checkpoints/x/", "models/x/", "model-outputs/x/")
    for folder in folders:
        stack.put(folder + "manifest.json", b'{"version": 1}')
    # A drop of our own that comes after them has been answered when they would have been.
    stack.record(stack.drop("after-ignored-manifests", {}, b"no manifest"))
    executions, mails = before
    assert _executions(stack) == executions
    assert len(stack.mails_of_runs()) == mails + 1
    assert [stack.records(folder) for folder in folders] == [[], [], [], []]


def test_a_manifest_in_another_bucket_is_ignored_by_the_rule_and_by_the_function(stack: Stack) -> None:
    s3 = stack.client("s3")
    s3.create_bucket(Bucket="somebody-elses")
    s3.put_bucket_notification_configuration(
        Bucket="somebody-elses", NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    before = _executions(stack), len(stack.mails_of_runs())
    s3.put_object(Bucket="somebody-elses", Key="datasets/x/manifest.json", Body=b'{"version": 1}')
    _invoke(stack, "ValidateManifest", _envelope(_dropped("somebody-elses", "datasets/x/manifest.json", "1")))
    # A drop of our own that comes after both has been answered when they would have been.
    marker = stack.drop("after-another-bucket", {}, b"no manifest")
    stack.record(marker)
    executions, mails = before
    assert _executions(stack) == executions
    assert len(stack.mails_of_runs()) == mails + 1
    assert stack.records("datasets/x/") == []


def test_an_event_of_an_unknown_pipeline_run_is_ignored(stack: Stack) -> None:
    pipeline = f"arn:aws:sagemaker:us-east-1:000000000000:pipeline/{stack.outputs['PipelineName']}"
    detail = {
        "pipelineArn": pipeline,
        "pipelineExecutionArn": f"{pipeline}/execution/nobodyknows1",
        "currentPipelineExecutionStatus": "Succeeded",
        "previousPipelineExecutionStatus": "Executing",
    }
    before = len(stack.mails_of_runs())
    kind = "SageMaker Model Building Pipeline Execution Status Change"
    _invoke(
        stack,
        "ObserveTraining",
        _envelope({"Source": "aws.sagemaker", "DetailType": kind, "Detail": json.dumps(detail)}),
    )
    time.sleep(2)
    assert len(stack.mails_of_runs()) == before
    queue = [url for url in stack.client("sqs").list_queues()["QueueUrls"] if "TrainingDeadLetters" in url]
    waiting = [
        stack.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
        for url in queue
    ]
    assert [each["Attributes"]["ApproximateNumberOfMessages"] for each in waiting] == ["0"] * len(queue)
