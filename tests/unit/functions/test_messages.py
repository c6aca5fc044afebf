"""The e-mails, against golden files.

UPDATE_GOLDEN=1 writes them anew, to be read before they are committed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_tuning import failure, messages
from fine_tuning.findings import error, warning
from fine_tuning.messages import Message
from fine_tuning.run import Run
from tests.functions_data import IMAGE, RUN

GOLDEN = Path(__file__).parent / "golden"
PLAN = {
    "total_steps": 600,
    "max_runtime_seconds": 5400,
    "instance_type": "ml.g5.8xlarge",
    "spot": False,
    "estimated_seconds": 1800,
    "estimated_cost_usd": 1.53,
}
OBSERVATION = {"seconds": 1750, "cost_usd": 1.49, "step": 600, "total": 600, "loss": 0.08123, "reason": None}
PREFIX = f"s3://{RUN.bucket}/runs/{RUN.run_id}/output/job/output/model/"
VERIFIED = {
    "model": {"uri": f"{PREFIX}cats.safetensors", "size": 45678901, "sha256": "ab" * 32, "tensors": 2166},
    "provenance_uri": f"{PREFIX}provenance.json",
    "samples": [f"{PREFIX}samples/000.png", f"{PREFIX}samples/001.png"],
    "rehearsal": False,
    "observation": OBSERVATION,
}
REASON = "The GPU ran out of memory.\nSet train_batch_size to 1.\nstep 12\nstep 13\nCUDA out of memory"


def report(count: int) -> dict[str, Any]:
    findings = [
        error("image-unreadable", f"10_cat/{n:02}.jpg", "This is not an image.", "Save it again.")
        for n in range(count)
    ]
    findings.append(
        error("dataset-without-captions", "", "None of the images has a caption.", "Write captions.")
    )
    findings.append(warning("file-not-used", "notes.md", "Not used.", "Remove it."))
    return {"findings": [finding.as_document() for finding in findings]}


def warnings(count: int) -> dict[str, Any]:
    findings = [
        warning(
            "option-unknown", "manifest.json", f"learning_rat{n} is no option.", "Did you mean learning_rate?"
        )
        for n in range(count)
    ]
    return {"findings": [finding.as_document() for finding in findings]}


def failed(stage: str, name: str, cause: str, **more: Any) -> Message:
    return messages.failed(RUN, failure.of_flow({"stage": stage, "error": name, "cause": cause, **more}))


LAMBDA_ERROR = json.dumps(
    {
        "errorMessage": "The model holds no tensor. What to do: Read the training job's log.",
        "errorType": "ModelNotProvenError",
        "stackTrace": ["  File /var/task/verify_model.py"],
    }
)
CASES: dict[str, Callable[[], Message]] = {
    "rejected": lambda: messages.rejected(RUN, report(1)),
    "rejected-many": lambda: messages.rejected(RUN, report(25)),
    "repeated": lambda: messages.repeated(
        RUN,
        {"repeats": "cats-ba9876543210", "repeats_status": "COMPLETED"},
        f"s3://{RUN.bucket}/runs/cats-ba9876543210/output/job/output/model/cats.safetensors",
    ),
    "repeated-in-flight": lambda: messages.repeated(
        RUN, {"repeats": "cats-ba98", "repeats_status": "TRAINING"}, None
    ),
    "started": lambda: messages.started(RUN, {"plan": PLAN, "image": IMAGE}, {"findings": []}),
    "started-with-warnings": lambda: messages.started(RUN, {"plan": PLAN, "image": IMAGE}, warnings(12)),
    "completed": lambda: messages.completed(RUN, VERIFIED, PLAN),
    "completed-rehearsal": lambda: messages.completed(
        RUN, {**VERIFIED, "rehearsal": True, "samples": []}, PLAN
    ),
    "failed-in-training": lambda: failed(
        "WatchTraining", "TrainingFailed", REASON, observation={**OBSERVATION, "reason": REASON}
    ),
    "failed-proof": lambda: failed("VerifyModel", "ModelNotProvenError", LAMBDA_ERROR),
    "failed-build": lambda: failed(
        "ResolveImage", "ImageBuildFailed", "The build p:1 of the training image failed."
    ),
    "failed-without-cause": lambda: failed("", "", ""),
    "stopped": lambda: messages.stopped(RUN, failure.of_stop({**OBSERVATION, "status": "Stopped"})),
    "stopped-from-outside": lambda: messages.stopped(RUN, failure.of_ended_execution("ABORTED", None)),
    "image-missing": lambda: messages.image_missing(RUN),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_is_the_golden_one(name: str) -> None:
    message = CASES[name]()
    text = f"Subject: {message.subject}\n\n{message.body}"
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_a_mail_can_be_sent_and_read_on_a_phone(name: str) -> None:
    message = CASES[name]()
    assert 0 < len(message.subject) <= 100
    assert all(" " <= character <= "~" for character in message.subject)
    assert len(message.body.splitlines()) <= 60
    assert {key for key, _ in message.attributes(RUN.run_id)} == {"kind", "status", "dataset", "run_id"}


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)


def test_the_first_twenty_problems_are_listed_and_the_rest_counted() -> None:
    body = messages.rejected(RUN, report(25)).body
    assert body.count("10_cat/") == 19
    assert "26 problems" in body
    assert "... and 6 more." in body
    assert "25 x image-unreadable" in body


@given(st.text(max_size=300))
def test_any_name_makes_a_subject_and_lines(name: str) -> None:
    run = Run("r-1", "b", f"datasets/{name}/", "k", "v")
    message = messages.repeated(run, {"repeats": "x", "repeats_status": "COMPLETED"}, "s3://b/m.safetensors")
    assert 0 < len(message.subject) <= 100
    assert all(" " <= character <= "~" for character in message.subject)
    assert len(message.body.splitlines()) == 7
    assert all(value for _, value in message.attributes("r-1"))


QUOTA = (
    "ClientError: An error occurred (ResourceLimitExceeded) when calling the CreateTrainingJob operation: The "
    "account-level service limit '{} training job usage' is 0 Instances, with current utilization of 0 "
    "Instances and a request delta of 1 Instances."
)


@pytest.mark.parametrize(
    ("reason", "observed", "remedy"),
    [
        (QUOTA.format("ml.g5.8xlarge for"), {}, "'ml.g5.8xlarge for training job usage' in Service Quotas"),
        (QUOTA.format("ml.g5.8xlarge for spot"), {}, "'ml.g5.8xlarge for spot training job usage' in"),
        (
            "ResourceLimitExceeded",
            {"instance_type": "ml.p5.4xlarge", "spot": True},
            "'ml.p5.4xlarge for spot training job usage' in Service Quotas",
        ),
        ("ResourceLimitExceeded", {}, "'<instance type> for training job usage' in Service Quotas"),
        ("CapacityError: Unable to provision requested ML compute capacity.", {}, "another instance type"),
        ("InsufficientCapacity: there is insufficient capacity", {"spot": True}, '"spot": false'),
        ("", {"secondary_status": "MaxRuntimeExceeded"}, "MaxTrainingRuntimeInSeconds"),
        ("", {"secondary_status": "MaxWaitTimeExceeded", "spot": True}, '"spot": false'),
    ],
)
def test_what_sagemaker_does_not_grant_is_named_with_the_way_to_get_it(
    reason: str, observed: dict[str, Any], remedy: str
) -> None:
    observation = {**OBSERVATION, "reason": reason or None, **observed}
    facts = {"stage": "WatchTraining", "error": "TrainingFailed", "observation": observation}
    told = failure.of_flow({**facts, "cause": reason or "SageMaker gave no reason."})
    assert remedy in told.remedy
    assert told.cause == reason or "time limit" in told.cause
    assert failure.of_stop(observation).remedy == told.remedy


def test_a_container_says_itself_what_to_do() -> None:
    reason = "The disk has insufficient capacity.\nRaise TrainingVolumeSizeInGB.\nlog"
    assert failure.of_stop({**OBSERVATION, "reason": reason}).remedy == "Raise TrainingVolumeSizeInGB."


@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT", "FAILED", "SUCCEEDED", "MISSING"])
def test_every_ending_of_a_flow_has_its_own_cause(status: str) -> None:
    endings = {failure.of_ended_execution(one, None).cause for one in ("FAILED", status)}
    assert len(endings) == (1 if status == "FAILED" else 2)


def test_an_address_is_never_cut_however_long_the_datasets_name() -> None:
    uri = (
        f"s3://{RUN.bucket}/runs/{'long-' * 8}0123456789ab/output/{'job-' * 30}/output/model/cats.safetensors"
    )
    message = messages.completed(RUN, {**VERIFIED, "model": {**VERIFIED["model"], "uri": uri}}, PLAN)
    assert f"aws s3 cp {uri} ." in message.body


def test_the_last_metric_may_be_late_but_the_steps_are_proved() -> None:
    late = {**VERIFIED, "observation": {**OBSERVATION, "step": 19}}
    body = messages.completed(RUN, late, PLAN).body
    assert "Steps:   600\n" in body
    assert "Loss:" not in body
