"""The main job: a dataset goes in, a proved model and an e-mail come out."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.end_to_end.journey import Stack, dataset, eventually, quick_manifest, variable


@pytest.fixture(scope="module")
def completed(stack: Stack) -> dict[str, object]:
    """One good run, shared by the tests that look at what it left."""
    files = dataset(6) | {"kohya-sdxl-config.toml": b"seed = 7\n"}
    record = stack.record(
        stack.drop("good", files, quick_manifest(trigger_word="phx", sample_prompts=["phx thing"]))
    )
    assert record["status"] == "COMPLETED", record
    return record


def test_a_run_ends_with_a_model_that_opens(
    stack: Stack, completed: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    uri = completed["model"]["model"]["uri"] if "model" in completed["model"] else completed["model"]["uri"]
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    stack.client("s3").download_file(bucket, key, str(tmp_path / "model.safetensors"))
    tensors = load_file(tmp_path / "model.safetensors")
    down = {name: tensor for name, tensor in tensors.items() if name.endswith("lora_down.weight")}
    assert down
    assert {min(tensor.shape) for tensor in down.values()} == {4}
    assert any(tensor.any() for name, tensor in tensors.items() if name.endswith("lora_up.weight"))


def test_the_user_is_told_at_the_start_and_at_the_end(stack: Stack, completed: dict[str, str]) -> None:
    run_id = completed["run_id"]
    assert "started" in {mail["X-Attribute-kind"] for mail in stack.mails(run_id)}
    body = stack.mail(run_id, "completed")
    assert f"s3://{stack.bucket}/runs/{run_id}/" in body
    assert ".safetensors" in body
    assert "rehearsal" in body.lower()
    for mail in stack.mails(run_id):
        subject = mail["Subject"]
        assert subject.isascii()
        assert len(subject) <= 100


def test_the_record_tells_the_way(stack: Stack, completed: dict[str, object]) -> None:
    history = completed["history"]
    assert isinstance(history, list)
    statuses = [each["status"] for each in history]
    assert statuses[0] == "RECEIVED"
    assert statuses[-1] == "COMPLETED"
    assert "TRAINING" in statuses
    assert stack.execution_ended(completed) == "SUCCEEDED"


def test_the_users_toml_was_heard(stack: Stack, completed: dict[str, str]) -> None:
    key = f"runs/{completed['run_id']}/input/config.toml"
    text = stack.client("s3").get_object(Bucket=stack.bucket, Key=key)["Body"].read().decode()
    assert "seed = 7" in text


def test_the_run_used_the_image_by_digest(stack: Stack, completed: dict[str, str]) -> None:
    (job,) = stack.training_jobs(completed["run_id"])
    assert "@sha256:" in job["AlgorithmSpecification"]["TrainingImage"]
    assert job["TrainingJobStatus"] == "Completed"


def test_the_same_dataset_again_is_answered_with_the_run_that_it_repeats(
    stack: Stack, completed: dict[str, str]
) -> None:
    files = dataset(6) | {"kohya-sdxl-config.toml": b"seed = 7\n"}
    prefix = stack.drop("good", files, quick_manifest(trigger_word="phx", sample_prompts=["phx thing"]))
    record = eventually(
        lambda: next((each for each in stack.records(prefix) if each["status"] == "REPEATED"), None),
        "a repeated run",
        explain=lambda: stack.records(prefix),
    )
    assert record["repeats"] == completed["run_id"]
    assert completed["run_id"] in stack.mail(record["run_id"], "repeated")
    assert stack.training_jobs(record["run_id"]) == []


def test_a_forced_repetition_runs(stack: Stack, completed: dict[str, str]) -> None:
    files = dataset(6) | {"kohya-sdxl-config.toml": b"seed = 7\n"}
    manifest = quick_manifest(trigger_word="phx", sample_prompts=["phx thing"], force=True)
    assert stack.record(stack.drop("good-again", files, manifest))["status"] == "COMPLETED"


def test_one_flat_folder_is_accepted_with_repeats_of_the_manifest(stack: Stack) -> None:
    files = {path.split("/")[1]: body for path, body in dataset(3).items()}
    record = stack.record(stack.drop("flat", files, quick_manifest(repeats=3, trigger_word="phx")))
    assert record["status"] == "COMPLETED", record


def test_a_preset_of_the_original_sample_runs(stack: Stack) -> None:
    manifest = quick_manifest(preset="sample-2024")
    record = stack.record(stack.drop("sample", dataset(3), manifest))
    assert record["status"] == "COMPLETED", record


def test_a_toml_uploaded_after_the_manifest_counts(stack: Stack) -> None:
    prefix = stack.drop("late-toml", dataset(3), quick_manifest())
    stack.put(prefix + "kohya-sdxl-config.toml", b"seed = 4242\n")
    record = stack.record(prefix)
    key = f"runs/{record['run_id']}/input/config.toml"
    text = stack.client("s3").get_object(Bucket=stack.bucket, Key=key)["Body"].read().decode()
    assert "seed = 4242" in text


def test_a_manifest_dropped_before_its_images_waits_for_them(stack: Stack) -> None:
    files = dataset(3)
    manifest = quick_manifest(files=[{"path": path} for path in files])
    prefix = stack.drop("early-manifest", {}, manifest)
    stack.record(prefix, {"WAITING_FOR_UPLOAD"})
    for path, body in files.items():
        stack.put(prefix + path, body)
    record = stack.record(prefix)
    assert record["status"] == "COMPLETED", record
    assert len(stack.records(prefix)) == 1


def test_a_large_file_on_its_way_is_waited_for(stack: Stack) -> None:
    s3, files = stack.client("s3"), dataset(4)
    late = "datasets/large/2_phx thing/03.jpg"
    where = {"Bucket": stack.bucket, "Key": late}
    body = files.pop("2_phx thing/03.jpg")
    upload = {**where, "UploadId": s3.create_multipart_upload(**where)["UploadId"]}
    part = s3.upload_part(**upload, PartNumber=1, Body=body)["ETag"]
    prefix = stack.drop("large", files, quick_manifest())
    stack.record(prefix, {"WAITING_FOR_UPLOAD"})
    time.sleep(3)  # more than an upload needs to settle
    assert stack.records(prefix)[0]["status"] == "WAITING_FOR_UPLOAD"
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]})
    record = stack.record(prefix)
    assert record["status"] == "COMPLETED", record
    assert "\nImages: 4\n" in stack.mail(record["run_id"], "started")


def test_images_that_never_arrive_end_in_a_mail(stack: Stack) -> None:
    manifest = quick_manifest(files=[{"path": "2_phx thing/00.jpg"}, {"path": "2_phx thing/99.jpg"}])
    with variable(stack, "UPLOAD_WAIT_SECONDS", "4"):
        prefix = stack.drop("never", dataset(1), manifest)
        record = stack.record(prefix)
    assert record["status"] == "REJECTED"
    body = stack.mail(record["run_id"], "rejected")
    assert "99.jpg" in body
    assert "00.jpg" not in body
    assert stack.execution_ended(record) == "FAILED"
    assert stack.training_jobs(record["run_id"]) == []


def test_provenance_lies_beside_the_model(stack: Stack, completed: dict[str, str]) -> None:
    listed = stack.client("s3").list_objects_v2(
        Bucket=stack.bucket, Prefix=f"runs/{completed['run_id']}/output/"
    )
    keys = [each["Key"] for each in listed["Contents"]]
    (provenance,) = [key for key in keys if key.endswith("provenance.json")]
    told = json.loads(stack.client("s3").get_object(Bucket=stack.bucket, Key=provenance)["Body"].read())
    assert told["rehearsal"] is True
    # The image by the digest that ECR knows, and the commit that it was built of
    assert told["image"] == completed["image"]
    ecr = stack.client("ecr")
    digest = told["image"].partition("@")[2]
    (image,) = ecr.describe_images(
        repositoryName=stack.outputs["ImageRepositoryName"], imageIds=[{"imageDigest": digest}]
    )["imageDetails"]
    assert f"{told['source_commit']}-v25.2.2" in image["imageTags"]
    assert any(each["name"].endswith(".safetensors") for each in told["files"])
