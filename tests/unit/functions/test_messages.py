"""The e-mails, against golden files.

UPDATE_GOLDEN=1 writes them anew, to be read before they are committed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_tuning import console, failure, larger_batch, messages
from fine_tuning.base_model import DEFAULT_ID, DEFAULT_REVISION
from fine_tuning.findings import error, warning
from fine_tuning.messages import Message
from fine_tuning.run import Run
from tests.functions_data import RUN

GOLDEN = Path(__file__).parent / "golden"
PLAN = {
    "total_steps": 600,
    "max_runtime_seconds": 5400,
    "instance_type": "ml.g5.8xlarge",
    "spot": False,
    "estimated_seconds": 1800,
    "estimated_cost_usd": 1.53,
}
SCALED = (
    "Speed: scaled to A10G from what was measured on H100: the trainer's own time as there; "
    "an image's work with arithmetic (55 %) and memory bandwidth (45 %)."
)
REPORTED = {"base_model": f"{DEFAULT_ID}@{DEFAULT_REVISION}"}
QUOTE = {
    "instance_type": "ml.g5.8xlarge",
    "least_seconds": 1080,
    "most_seconds": 3240,
    "usd_per_hour": 3.06,
    "spot_cost_usd": 0.77,
    "assumed": [
        SCALED,
        "Price: 3.06 USD an hour on demand.",
    ],
}
JOB = "pipelines-0123456789ab-TrainOnDemand-XyZ0123456"
OBSERVATION = {
    "training_job": JOB,
    "instance_type": "ml.g5.8xlarge",
    "spot": False,
    "seconds": 1750,
    "cost_usd": 1.49,
    "step": 600,
    "total": 600,
    "loss": 0.08123,
    "eta_seconds": 0.0,
    "reason": None,
}
HALFWAY = {**OBSERVATION, "seconds": 875, "cost_usd": 0.75, "step": 300, "eta_seconds": 880.4}
LINKS = console.of_run(
    {
        "execution_arn": f"arn:aws:states:us-east-1:111122223333:execution:kohya-ss-fine-tuning:{RUN.run_id}",
        "observation": OBSERVATION,
    }
)
BUILD = "arn:aws:codebuild:us-east-1:111122223333:build/kohya-ss-fine-tuning-build-container:0e9d7a5c-1b2f"
BUILT = {
    "commit": "4f2a9c1e7b60",
    "kohya_version": "v25.2.2",
    "digest": f"sha256:{'a' * 64}",
    "build_id": BUILD,
    "seconds": 1530,
    "size_bytes": 9_876_543_210,
    "findings": {"LOW": 12, "CRITICAL": 1, "MEDIUM": 0, "HIGH": 3, "UNDEFINED": 2},
    "tests": {"import": "passed", "train": "passed"},
}
PREFIX = f"s3://{RUN.bucket}/runs/{RUN.run_id}/output/job/output/model/"
VERIFIED = {
    "model": {"uri": f"{PREFIX}cats.safetensors", "size": 45678901, "sha256": "ab" * 32, "tensors": 2166},
    "provenance_uri": f"{PREFIX}provenance.json",
    "samples": [f"{PREFIX}samples/000.png", f"{PREFIX}samples/001.png"],
    "base_model": f"{DEFAULT_ID}@{DEFAULT_REVISION}",
    "trigger_word": "ohwx cat",
    "rehearsal": False,
    "observation": OBSERVATION,
}
QUOTA = (
    "ClientError: An error occurred (ResourceLimitExceeded) when calling the CreateTrainingJob operation: The "
    "account-level service limit '{} training job usage' is 0 Instances, with current utilization of 0 "
    "Instances and a request delta of 1 Instances."
)
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
    return {"findings": [finding.as_document() for finding in findings], "plan": REPORTED}


def failed(stage: str, name: str, cause: str, **more: Any) -> Message:
    plan = {} if stage == "ResolveImage" else PLAN
    return messages.failed(
        RUN, failure.of_flow({"stage": stage, "error": name, "cause": cause, **more}), plan
    )


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
    "waiting-for-capacity": lambda: messages.waiting(
        RUN,
        {"reason": "capacity", "instance_type": "ml.g6.2xlarge", "spot": True, "retry_in_seconds": 600},
    ),
    "waiting-for-quota": lambda: messages.waiting(
        RUN,
        {
            "reason": "quota",
            "instance_type": "ml.g5.8xlarge",
            "spot": False,
            "detail": QUOTA.format("ml.g5.8xlarge for"),
            "retry_in_seconds": 3600,
        },
    ),
    "waiting-for-slot": lambda: messages.waiting(
        RUN, {"reason": "slot", "position": 3, "retry_in_seconds": 60}
    ),
    "waiting-for-sagemaker": lambda: messages.waiting(
        RUN,
        {
            "reason": "sagemaker",
            "instance_type": "ml.g5.8xlarge",
            "spot": False,
            "detail": "InternalServerError: We encountered an internal error. Please try again.",
            "retry_in_seconds": 300,
        },
    ),
    "waiting-for-source": lambda: messages.waiting(RUN, {"reason": "source"}),
    "waiting-for-image": lambda: messages.waiting(
        RUN, {"reason": "image", "detail": f"The build is {BUILD}."}
    ),
    "waiting-for-other-builds": lambda: messages.waiting(RUN, {"reason": "build-quota"}),
    "waiting-for-other-jobs": lambda: messages.waiting(
        RUN,
        {
            "reason": "quota-in-use",
            "instance_type": "ml.g5.8xlarge",
            "spot": False,
            "detail": QUOTA.format("ml.g5.8xlarge for").replace("is 0", "is 1").replace("of 0", "of 1"),
            "retry_in_seconds": 600,
        },
    ),
    "waiting-for-upload": lambda: messages.waiting(
        RUN,
        {
            "reason": "upload",
            "detail": "2_cat/7.png: The manifest lists this file; it has not arrived. And 2 more.",
        },
    ),
    "started": lambda: messages.started(
        RUN,
        {"plan": PLAN, "images": 120},
        {
            "findings": [],
            "plan": REPORTED,
            "quote": QUOTE,
        },
    ),
    "started-on-a-rung": lambda: messages.started(
        RUN,
        {
            "plan": {**PLAN, "instance_type": "ml.g6.2xlarge", "spot": True},
            "rung": {"number": 2, "of": 3},
        },
        {
            "findings": [],
            "plan": {"base_model": f"s3://{RUN.bucket}/models/pony/ponyDiffusionV6XL.safetensors"},
        },
    ),
    "started-with-a-recipe": lambda: messages.started(
        RUN,
        {"plan": PLAN},
        {
            "findings": [
                finding.as_document()
                for finding in larger_batch.told({"train_batch_size": 4}, {"train_batch_size": 8})
            ],
            "plan": REPORTED,
        },
    ),
    "started-with-latents": lambda: messages.started(
        RUN,
        {
            "plan": PLAN,
            "latents": {"images": 117, "of": 120, "runs": ["cats-ba9876543210", "cats-000000000000"]},
        },
        {"findings": [], "plan": REPORTED},
    ),
    "started-with-warnings": lambda: messages.started(RUN, {"plan": PLAN}, warnings(12)),
    "progress": lambda: messages.progress(RUN, {"observation": HALFWAY, "milestone": 50}),
    "progress-unseen": lambda: messages.unseen(
        RUN, {"observation": HALFWAY, "unseen_since": "2026-11-28T10:00:00+00:00"}
    ),
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
    "stopped-on-a-later-attempt": lambda: messages.stopped(
        RUN, failure.of_stop({**OBSERVATION, "status": "Stopped"}), PLAN, 1.25
    ),
    "stopped-from-outside": lambda: messages.stopped(RUN, failure.of_ended_execution("ABORTED", None)),
    "stopped-from-outside-in-training": lambda: messages.stopped(
        RUN, failure.of_ended_execution("ABORTED", None, HALFWAY), PLAN
    ),
    "image-missing": lambda: messages.image_missing(RUN),
    "image-built": lambda: messages.image_built(BUILT),
    "image-built-unscanned": lambda: messages.image_built(
        {**BUILT, "findings": None, "scan_status": "IN_PROGRESS", "tests": None, "size_bytes": None}
    ),
    "image-failed": lambda: messages.image_failed(
        {
            "build_id": BUILD,
            "commit": "4f2a9c1e7b60",
            "phase": "BUILD",
            "reason": "Error while executing command: docker build. Reason: exit status 1",
            "log_lines": [f"#12 {n}.0 Collecting torch" for n in range(14)],
        }
    ),
}
LINKED = {
    "rejected-many": LINKS[:1],
    "started-with-warnings": LINKS[:1],
    "completed": LINKS,
    "failed-in-training": LINKS,
    "progress": LINKS,
    "progress-unseen": LINKS,
}


def written(name: str) -> Message:
    """With the console's pages where a mail of this kind has them."""
    message = CASES[name]()
    return message.with_links(LINKED[name]) if name in LINKED else message


@pytest.mark.parametrize("name", CASES)
def test_the_text_is_the_golden_one(name: str) -> None:
    message = written(name)
    text = f"Subject: {message.subject}\n\n{message.body}"
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_a_mail_can_be_sent_and_read_on_a_phone(name: str) -> None:
    message = written(name)
    assert 0 < len(message.subject) <= 100
    assert all(" " <= character <= "~" for character in message.subject)
    assert len(message.body.splitlines()) <= 60
    required = {"kind", "status", "action"}
    required |= (
        {"build_id"}
        if name in ("image-built", "image-built-unscanned", "image-failed")
        else {"dataset", "run_id"}
    )
    assert required <= set(message.attributes) <= required | {"instance_type", "cost_usd"}
    # SNS takes no more than ten to a queue that wants raw messages, and none that is empty.
    assert all(str(value) for value in message.attributes.values())


@pytest.mark.parametrize("name", CASES)
def test_an_address_and_a_command_stand_on_lines_of_their_own(name: str) -> None:
    """A phone breaks lines at 40 columns; what is tapped or copied must not hang on to a sentence."""
    for line in written(name).body.splitlines():
        if "s3://" in line:
            assert line.startswith(("s3://", "aws s3 cp "))
        if "https://" in line:
            assert line.startswith("https://")
        if "./dev" in line and not name.startswith("failed-build"):
            assert line.startswith("./dev")


@pytest.mark.parametrize("name", sorted(set(CASES) - {"completed-rehearsal"}))
def test_every_mail_names_the_next_command(name: str) -> None:
    lines = written(name).body.splitlines()
    assert any(line.startswith(("./dev ", "aws s3 cp ")) for line in lines)


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)


def test_the_first_twenty_problems_are_listed_and_the_rest_counted() -> None:
    body = messages.rejected(RUN, report(25)).body
    assert body.count("10_cat/") == 19
    assert "26 problems" in body
    assert "... and 6 more, in the report." in body
    assert "25 x image-unreadable" in body


@given(st.text(max_size=300))
def test_any_name_makes_a_subject_and_lines(name: str) -> None:
    run = Run("r-1", "b", f"datasets/{name}/", "k", "v")
    message = messages.repeated(run, {"repeats": "x", "repeats_status": "COMPLETED"}, "s3://b/m.safetensors")
    assert 0 < len(message.subject) <= 100
    assert all(" " <= character <= "~" for character in message.subject)
    assert len(message.body.splitlines()) == 9
    assert all(value and str(value).isprintable() for value in message.attributes.values())


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
        (
            "ResourceLimitExceeded",
            {"instance_type": None},
            "'<instance type> for training job usage' in Service Quotas",
        ),
        ("CapacityError: Unable to provision requested ML compute capacity.", {}, "another instance type"),
        ("InsufficientCapacity: there is insufficient capacity", {"spot": True}, '"spot": false'),
        (
            "ClientError: Data download failed:Failed to download data. S3 key: s3://b/c//d.jpg has an illegal char",
            {},
            "rename it where its key has '//'",
        ),
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
    assert "Steps: 600\n" in body
    assert "Loss:" not in body


def test_a_run_gets_one_mail_a_milestone_a_rung_and_a_reason_to_wait() -> None:
    def progressed(percent: int) -> Message:
        return messages.progress(RUN, {"observation": HALFWAY, "milestone": percent})

    def waits(reason: str, instance_type: str) -> Message:
        facts = {"reason": reason, "instance_type": instance_type, "spot": False, "retry_in_seconds": 9}
        return messages.waiting(RUN, facts)

    assert progressed(25).identity != progressed(50).identity
    assert waits("capacity", "ml.g5.8xlarge").identity != waits("capacity", "ml.g6.2xlarge").identity
    assert waits("capacity", "ml.g5.8xlarge").identity != waits("quota", "ml.g5.8xlarge").identity
    assert waits("quota", "ml.g5.8xlarge").identity == waits("quota", "ml.g5.8xlarge").identity
    assert CASES["started"]().identity != CASES["started-on-a-rung"]().identity
    assert CASES["failed-in-training"]().identity == CASES["failed-without-cause"]().identity


def test_a_command_can_be_typed_whatever_the_datasets_name() -> None:
    run = Run("r-1", "b", "datasets/my cats' pictures/", "datasets/my cats' pictures/manifest.json", "v")
    command = next(
        line for line in messages.rejected(run, report(1)).body.splitlines() if line.startswith("aws s3 cp")
    )
    assert shlex.split(command) == ["aws", "s3", "cp", "manifest.json", f"s3://b/{run.manifest_key}"]


def test_a_long_mail_keeps_its_beginning_and_its_end() -> None:
    lines = [f"line {number}" for number in range(80)]
    message = messages.image_failed({"build_id": BUILD, "log_lines": []})
    body = dataclasses.replace(message, paragraphs=(lines,)).body.splitlines()
    assert len(body) == 60
    assert body[0] == "line 0"
    assert body[-3:-1] == ["", "The build's log:"]


def test_the_mail_quotes_the_newest_lines_and_not_those_before_them() -> None:
    reason = "No data.\nRemedy: Add images.\n\nepoch 1\nno data found\nBefore these:\nepoch 0"
    told = failure.of_flow({"stage": "WatchTraining", "error": "TrainingFailed", "cause": reason})
    assert (told.cause, told.remedy) == ("No data.", "Add images.")
    assert told.log_lines == ("epoch 1", "no data found")


def test_a_file_whose_name_nobody_would_see_whole_is_named() -> None:
    finding = error("file-name-unusable", "cats/Icon\r", "The name is bad.", "Rename it.")
    mail = messages.rejected(RUN, {"findings": [finding.as_document()]})
    assert "\n1. cats/Icon\\r: The name is bad.\n" in mail.body
