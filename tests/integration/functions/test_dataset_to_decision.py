"""From a drop to the decision, handler by handler, as the flow calls them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import inspect_shard
import notify
import plan_run
import pytest
import take_inventory
import validate_manifest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from fine_tuning.aws import deployment, sdk
from fine_tuning.aws.images import Images
from fine_tuning.run import run_id_of
from tests.functions_data import BUCKET, dropped, image_bytes
from tests.integration.functions.conftest import ENVIRONMENT, REGION, Stack
from tests.integration.functions.test_image_and_identity import push_image

PREFIX = "datasets/cats/"
MANIFEST = f"{PREFIX}manifest.json"
GOOD = {
    "10_sks cat/a.jpg": image_bytes(),
    "10_sks cat/a.txt": b"a photo of sks cat",
    "10_sks cat/b.png": image_bytes(512, 768, "PNG"),
    "10_sks cat/b.txt": b"sks cat on a sofa",
    "10_sks cat/c.webp": image_bytes(800, 800, "WEBP"),
    "10_sks cat/c.caption": b"sks cat asleep",
}


@pytest.fixture(autouse=True)
def source(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The tip of the image's source, which moto cannot be asked for; changed in place."""
    tip: list[str | None] = ["c0ffee"]
    monkeypatch.setattr(Images, "source_commit", lambda self: tip[0])
    return tip


def drop(
    stack: Stack, manifest: bytes, files: Mapping[str, bytes] | None = None
) -> tuple[dict[str, Any], str]:
    """Files, then the manifest; the run as the flow is given it, and the manifest's version."""
    for path, content in (files or {}).items():
        stack.put(PREFIX + path, content)
    version = stack.put(MANIFEST, manifest)
    run_id = run_id_of(BUCKET, MANIFEST, version)
    run = {
        "run_id": run_id,
        "bucket": BUCKET,
        "dataset_prefix": PREFIX,
        "manifest_key": MANIFEST,
        "manifest_version": version,
    }
    return run, version


def decide(
    stack: Stack, manifest: bytes, files: Mapping[str, bytes]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run, and plan_run's answer."""
    run, version = drop(stack, manifest, files)
    assert validate_manifest.handler(dropped(MANIFEST, version), stack.context)["status"] == "RECEIVED"
    started_at = datetime.now(UTC).isoformat()
    inventory = take_inventory.handler({"run": run, "started_at": started_at}, stack.context)
    assert inventory["status"] == "complete"
    results = [
        inspect_shard.handler({"run": run, "shard": shard}, stack.context) for shard in inventory["shards"]
    ]
    return run, plan_run.handler({"run": run, "results": results}, stack.context)


def findings(stack: Stack, run: Mapping[str, str]) -> dict[str, list[str]]:
    """Code → paths of the report's errors."""
    report = json.loads(stack.read(f"runs/{run['run_id']}/report.json"))
    found: dict[str, list[str]] = {}
    for finding in report["findings"]:
        if finding["severity"] == "error":
            found.setdefault(finding["code"], []).append(finding["path"])
    return found


def test_given_a_good_dataset_then_it_is_planned_and_everything_that_training_reads_is_written(
    stack: Stack,
) -> None:
    toml = b'[training]\nmax_train_epochs = 4\nunet_lr = 2e-4\noutput_dir = "/somewhere"\n'
    manifest = b'{"version": 1, "config": {"network_dim": 8, "train_batch_size": 2}, "spot": true}'

    run, answer = decide(stack, manifest, {**GOOD, "kohya-sdxl-config.toml": toml})

    assert answer["decision"] == "accepted"
    config = tomllib.loads(stack.read(f"runs/{run['run_id']}/input/config.toml").decode())
    assert (config["network_dim"], config["unet_lr"], config["network_alpha"]) == (8, 2e-4, 16)
    assert "output_dir" not in config
    assert "max_train_epochs" not in config
    # Three images with 10 repeats each, every one in a bucket of its own: 3 × ceil(10 / 2) × 4 epochs.
    assert answer["plan"]["total_steps"] == 60
    plan = json.loads(stack.read(f"runs/{run['run_id']}/input/plan.json"))
    assert plan["layout"][0]["folder"] == "10_sks cat"
    assert {"source": "10_sks cat/c.caption", "target": "c.txt"} in plan["layout"][0]["files"]
    lines = stack.read(f"runs/{run['run_id']}/input/inventory.jsonl").decode().splitlines()
    assert len(lines) == 7
    assert json.loads(lines[0])["width"] == 640
    parameters = {p["Name"]: p["Value"] for p in answer["ladder"][0]["pipeline_parameters"]}
    assert parameters["TrainingMode"] == "spot"
    assert parameters["InputS3DatasetLocation"] == f"s3://{BUCKET}/{PREFIX}"
    assert all(isinstance(value, str) for value in parameters.values())
    record = stack.record(run["run_id"])
    assert record["status"] == "PLANNED"
    assert record["plan"] == answer["plan"]
    assert [change["status"] for change in record["history"]] == ["RECEIVED", "INSPECTING", "PLANNED"]
    assert stack.executions() == [run["run_id"]]
    assert stack.mails() == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"notes.md": b"x"}, {"dataset-without-images": [""]}),
        ({}, {"dataset-without-images": [""]}),
        ({**GOOD, "10_sks cat/bad.jpg": b"not an image"}, {"image-unreadable": ["10_sks cat/bad.jpg"]}),
        ({**GOOD, "10_sks cat/cut.jpg": image_bytes()[:4000]}, {"image-truncated": ["10_sks cat/cut.jpg"]}),
        ({**GOOD, "10_sks cat/none.png": b""}, {"image-empty": ["10_sks cat/none.png"]}),
        ({**GOOD, "kohya-sdxl-config.toml": b"a = = 1"}, {"config-not-toml": ["kohya-sdxl-config.toml"]}),
        ({**GOOD, "10_sks cat/a.txt": b"\xff\xfe\x00"}, {"caption-not-utf8": ["10_sks cat/a.txt"]}),
        ({"10_cat/a.jpg": GOOD["10_sks cat/a.jpg"]}, {"dataset-without-captions": [""]}),
    ],
    ids=["other-files", "empty", "unreadable", "truncated", "zero-bytes", "toml", "caption", "no-captions"],
)
def test_given_a_bad_dataset_then_it_is_rejected_with_one_mail(
    stack: Stack, files: dict[str, bytes], expected: dict[str, list[str]]
) -> None:
    run, answer = decide(stack, b'{"version": 1}', files)

    assert answer == {"decision": "rejected", "plan": None, "ladder": [], "budget_usd": None}
    assert findings(stack, run) == expected
    told = [notify.handler({"run": run, "kind": "rejected", "facts": {}}, stack.context) for _ in range(2)]
    assert told[0] == told[1]
    (mail,) = stack.mails()
    for code in expected:
        assert code in mail["Message"]
    assert mail["MessageAttributes"]["status"]["Value"] == "REJECTED"
    record = stack.record(run["run_id"])
    assert record["status"] == "REJECTED"
    assert len(record["notifications"]) == 1
    assert not [key for key in stack.keys("runs/") if "/input/" in key]
    assert {key[len(PREFIX) :] for key in stack.keys(PREFIX)} == {*files, "manifest.json"}


BAD_MANIFESTS = {
    "not-json": (b"{", "manifest-json-invalid"),
    "not-utf8": (b'{"version": 1, "licence": "\xff"}', "manifest-json-not-utf8"),
    "schema": (b'{"version": 2, "reapeats": 3}', "manifest-unknown-key"),
    "too-large": (b'{"version": 1, "licence": "' + b"x" * 1024 * 1024 + b'"}', "manifest-too-large"),
    "leaves-the-dataset": (b'{"version": 1, "files": [{"path": "../secret"}]}', "manifest-path-outside"),
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_given_a_bad_manifest_delivered_three_times_then_one_mail_and_no_execution(
    stack: Stack, name: str
) -> None:
    content, code = BAD_MANIFESTS[name]
    run, version = drop(stack, content)

    for _ in range(3):
        answer = validate_manifest.handler(dropped(MANIFEST, version), stack.context)
        assert answer == {"status": "REJECTED", "run_id": run["run_id"]}

    (mail,) = stack.mails()
    assert code in mail["Message"]
    assert f"s3://{BUCKET}/runs/{run['run_id']}/report.json" in mail["Message"]
    assert stack.executions() == []
    assert code in findings(stack, run)
    assert stack.read(MANIFEST) == content


def test_given_a_good_manifest_delivered_three_times_then_one_execution(stack: Stack) -> None:
    run, version = drop(stack, b'{"version": 1}')

    for _ in range(3):
        validate_manifest.handler(dropped(MANIFEST, version), stack.context)

    assert stack.executions() == [run["run_id"]]
    assert len(stack.record(run["run_id"])["history"]) == 1
    assert stack.mails() == []


@pytest.mark.parametrize(
    ("key", "bucket"),
    [
        ("runs/x/manifest.json", BUCKET),
        ("checkpoints/x/manifest.json", BUCKET),
        ("models/manifest.json", BUCKET),
        ("model-outputs/x/manifest.json", BUCKET),
        ("datasets/cats/not-manifest.json", BUCKET),
        ("datasets/cats/manifest.json.bak", BUCKET),
        (MANIFEST, "somebody-elses-bucket"),
    ],
)
def test_given_an_event_of_another_place_then_nothing_happens(stack: Stack, key: str, bucket: str) -> None:
    version = stack.put(key, b"{")

    answer = validate_manifest.handler(dropped(key, version, bucket), stack.context)

    assert answer["status"] == "IGNORED"
    assert stack.mails() == []
    assert stack.executions() == []
    assert [k for k in stack.keys("runs/") if k.endswith("report.json")] == []


@pytest.mark.parametrize("key", ["datasets/cats//manifest.json", "/cats/manifest.json"])
def test_given_a_key_that_sagemaker_does_not_download_then_it_is_rejected_with_the_remedy(
    stack: Stack, key: str
) -> None:
    version = stack.put(key, b'{"version": 1}')

    answer = validate_manifest.handler(dropped(key, version), stack.context)

    assert answer["status"] == "REJECTED"
    assert stack.executions() == []
    (mail,) = stack.mails()
    assert f"There is '//' in s3://{BUCKET}/{key}" in mail["Message"]
    assert "Copy the whole dataset to an address with single slashes" in mail["Message"]


def test_given_files_that_arrive_late_then_the_flow_waits_and_takes_the_toml_of_then(
    stack: Stack, at: Callable[[datetime], None]
) -> None:
    manifest = json.dumps({"version": 1, "files": [{"path": path} for path in GOOD]}).encode()
    run, version = drop(stack, manifest, {"10_sks cat/a.jpg": GOOD["10_sks cat/a.jpg"]})
    validate_manifest.handler(dropped(MANIFEST, version), stack.context)
    request = {"run": run, "started_at": datetime.now(UTC).isoformat()}

    waiting = take_inventory.handler(request, stack.context)
    assert (waiting["status"], waiting["wait_seconds"]) == ("waiting", 1)
    assert stack.record(run["run_id"])["status"] == "WAITING_FOR_UPLOAD"

    for path, content in {**GOOD, "kohya-sdxl-config.toml": b"network_dim = 4\n"}.items():
        stack.put(PREFIX + path, content)
    inventory = take_inventory.handler(request, stack.context)
    assert inventory["status"] == "complete"
    results = [inspect_shard.handler({"run": run, "shard": s}, stack.context) for s in inventory["shards"]]
    # A later version of the TOML is not the one that was inventoried.
    stack.put(f"{PREFIX}kohya-sdxl-config.toml", b"network_dim = 99\n")
    assert plan_run.handler({"run": run, "results": results}, stack.context)["decision"] == "accepted"
    assert tomllib.loads(stack.read(f"runs/{run['run_id']}/input/config.toml").decode())["network_dim"] == 4


def test_given_files_that_never_arrive_then_the_run_is_rejected_after_the_wait(
    stack: Stack, at: Callable[[datetime], None]
) -> None:
    run, version = drop(stack, b'{"version": 1, "images": 3}', {"a.jpg": GOOD["10_sks cat/a.jpg"]})
    validate_manifest.handler(dropped(MANIFEST, version), stack.context)
    started_at = datetime.now(UTC)
    request = {"run": run, "started_at": started_at.isoformat().replace("+00:00", "Z")}
    assert take_inventory.handler(request, stack.context)["status"] == "waiting"

    at(started_at + timedelta(seconds=61))
    answer = take_inventory.handler(request, stack.context)

    assert (answer["status"], answer["shards"]) == ("expired", [])
    assert findings(stack, run) == {"images-missing": [""]}
    assert notify.handler({"run": run, "kind": "rejected"}, stack.context)["status"] == "REJECTED"
    waiting, rejected = stack.mails()
    assert "announces 3 images; 1 arrived" in rejected["Message"]
    assert "Upload what is missing" in waiting["Message"]


def test_given_an_upload_that_stands_still_then_one_mail_says_what_is_awaited(
    stack: Stack, at: Callable[[datetime], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SETTLE_SECONDS", "30")
    deployment.forget()
    manifest = json.dumps({"version": 1, "files": [{"path": path} for path in GOOD]}).encode()
    run, version = drop(stack, manifest, {"10_sks cat/a.jpg": GOOD["10_sks cat/a.jpg"]})
    validate_manifest.handler(dropped(MANIFEST, version), stack.context)
    started_at = datetime.now(UTC)
    request: dict[str, Any] = {"run": run, "started_at": started_at.isoformat(), "sighting": None}
    for seconds, mails in ((10, 0), (40, 1), (50, 0)):
        at(started_at + timedelta(seconds=seconds))
        answer = take_inventory.handler(request, stack.context)
        assert answer["status"] == "waiting"
        request["sighting"] = answer["sighting"]
        told = stack.mails()
        assert len(told) == mails
        for mail in told:
            assert mail["Subject"] == "Waiting: cats for its files"
            assert "it has not arrived. And 4 more." in mail["Message"]
    assert stack.record(run["run_id"])["status"] == "WAITING_FOR_UPLOAD"


@contextmanager
def uploads_begun_at(moment: datetime) -> Iterator[None]:
    """moto lists uploads in parts with a date of 2010."""

    def dated(parsed: dict[str, Any], **_: Any) -> None:
        for begun in parsed.get("Uploads", ()):
            begun["Initiated"] = moment

    events = sdk.client("s3").meta.events
    events.register("after-call.s3.ListMultipartUploads", dated)
    try:
        yield
    finally:
        events.unregister("after-call.s3.ListMultipartUploads", dated)


def test_given_a_file_in_parts_then_its_upload_is_awaited_and_then_a_look_that_finds_nothing_new(
    stack: Stack, at: Callable[[datetime], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SETTLE_SECONDS", "30")
    monkeypatch.setenv("UPLOAD_WAIT_SECONDS", "600")
    deployment.forget()
    late = {"Bucket": BUCKET, "Key": f"{PREFIX}10_sks cat/c.webp"}
    upload = {**late, "UploadId": stack.s3.create_multipart_upload(**late)["UploadId"]}
    body = GOOD["10_sks cat/c.webp"]
    part = stack.s3.upload_part(**upload, PartNumber=1, Body=body)["ETag"]
    files = {path: content for path, content in GOOD.items() if path != "10_sks cat/c.webp"}
    run, version = drop(stack, b'{"version": 1}', files)
    validate_manifest.handler(dropped(MANIFEST, version), stack.context)
    started_at = datetime.now(UTC)
    request: dict[str, Any] = {"run": run, "started_at": started_at.isoformat(), "sighting": None}

    def look(seconds: int) -> dict[str, Any]:
        at(started_at + timedelta(seconds=seconds))
        answer: dict[str, Any] = take_inventory.handler(request, stack.context)
        request["sighting"] = answer["sighting"]
        return answer

    with uploads_begun_at(started_at):
        assert [look(seconds)["status"] for seconds in (0, 30, 200)] == ["waiting"] * 3
        assert stack.mails() == []
        parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
        stack.s3.complete_multipart_upload(**upload, MultipartUpload=parts)
        assert (look(210)["status"], look(239)["status"]) == ("waiting", "waiting")
        assert look(240)["status"] == "complete"


def test_given_a_file_whose_upload_never_ends_then_the_run_is_rejected_after_the_wait(
    stack: Stack, at: Callable[[datetime], None]
) -> None:
    stack.s3.create_multipart_upload(Bucket=BUCKET, Key=f"{PREFIX}10_sks cat/d.jpg")
    run, version = drop(stack, b'{"version": 1}', GOOD)
    validate_manifest.handler(dropped(MANIFEST, version), stack.context)
    started_at = datetime.now(UTC)
    request = {"run": run, "started_at": started_at.isoformat()}
    with uploads_begun_at(started_at + timedelta(seconds=2)):
        at(started_at + timedelta(seconds=61))
        assert take_inventory.handler(request, stack.context)["status"] == "expired"
    assert findings(stack, run) == {"upload-unfinished": ["10_sks cat/d.jpg"]}


def test_given_sns_is_down_then_an_upload_is_awaited_all_the_same(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, version = drop(stack, b'{"version": 1, "images": 3}', {"a.jpg": GOOD["10_sks cat/a.jpg"]})
    validate_manifest.handler(dropped(MANIFEST, version), stack.context)
    request = {"run": run, "started_at": datetime.now(UTC).isoformat()}
    with Stubber(sdk.client("sns")) as sns:
        sns.add_client_error("publish", "InternalError", http_status_code=500)
        assert take_inventory.handler(request, stack.context)["status"] == "waiting"
        sns.assert_no_pending_responses()


@contextmanager
def table_of_mails_refuses(operation: str, code: str) -> Iterator[None]:
    """The table that remembers which mails went out; it must have been asked."""
    dynamodb, refused = sdk.client("dynamodb"), []

    def refuse(params: dict[str, Any], **_: Any) -> None:
        if params["TableName"] == ENVIRONMENT["IDEMPOTENCY_TABLE_NAME"]:
            refused.append(params)
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, operation)

    event = f"provide-client-params.dynamodb.{operation}"
    dynamodb.meta.events.register(event, refuse)
    try:
        yield
    finally:
        dynamodb.meta.events.unregister(event, refuse)
    assert refused


@pytest.mark.parametrize("code", ["InternalServerError", "ThrottlingException", "AccessDeniedException"])
def test_given_what_was_mailed_cannot_be_looked_up_then_an_upload_is_awaited_all_the_same(
    stack: Stack, code: str
) -> None:
    run, version = drop(stack, b'{"version": 1, "images": 3}', {"a.jpg": GOOD["10_sks cat/a.jpg"]})
    validate_manifest.handler(dropped(MANIFEST, version), stack.context)
    with table_of_mails_refuses("PutItem", code):
        request = {"run": run, "started_at": datetime.now(UTC).isoformat()}
        assert take_inventory.handler(request, stack.context)["status"] == "waiting"
    assert stack.mails() == []


def test_given_a_mail_that_went_out_cannot_be_remembered_then_it_is_told_once(stack: Stack) -> None:
    run, version = drop(stack, b'{"version": 1, "images": 3}', {"a.jpg": GOOD["10_sks cat/a.jpg"]})
    validate_manifest.handler(dropped(MANIFEST, version), stack.context)
    with table_of_mails_refuses("UpdateItem", "ThrottlingException"):
        request = {"run": run, "started_at": datetime.now(UTC).isoformat()}
        for _ in range(2):
            assert take_inventory.handler(request, stack.context)["status"] == "waiting"
    assert len(stack.mails()) == 1
    (told,) = stack.record(run["run_id"])["notifications"]
    assert told["kind"] == "waiting"


def test_given_no_image_and_no_source_then_that_is_mailed_once_while_the_upload_goes_on(
    stack: Stack, source: list[str | None]
) -> None:
    source[0] = None
    ecr = boto3.client("ecr", region_name=REGION)
    ecr.create_repository(repositoryName=ENVIRONMENT["IMAGE_REPOSITORY_NAME"])
    run, version = drop(stack, b'{"version": 1, "images": 3}', {"a.jpg": GOOD["10_sks cat/a.jpg"]})
    validate_manifest.handler(dropped(MANIFEST, version), stack.context)
    request = {"run": run, "started_at": datetime.now(UTC).isoformat()}

    for _ in range(2):
        assert take_inventory.handler(request, stack.context)["status"] == "waiting"

    told = [mail for mail in stack.mails() if mail["Subject"].endswith("for the training image's source")]
    assert len(told) == 1
    assert "\n./dev push-image-source\n" in told[0]["Message"]
    assert f"\n./dev retry {run['run_id']}\n" in told[0]["Message"]


def test_given_an_image_nobody_is_asked_for_its_source(stack: Stack, source: list[str | None]) -> None:
    source[0] = None
    ecr = boto3.client("ecr", region_name=REGION)
    ecr.create_repository(repositoryName=ENVIRONMENT["IMAGE_REPOSITORY_NAME"])
    push_image("c0ffee-v25.2.2", "latest")
    run, version = drop(stack, b'{"version": 1, "images": 3}', {"a.jpg": GOOD["10_sks cat/a.jpg"]})
    validate_manifest.handler(dropped(MANIFEST, version), stack.context)

    take_inventory.handler({"run": run, "started_at": datetime.now(UTC).isoformat()}, stack.context)

    assert not [mail for mail in stack.mails() if "source" in mail["Subject"]]


def test_given_ecr_cannot_be_asked_then_the_upload_is_awaited_all_the_same(
    stack: Stack, source: list[str | None]
) -> None:
    source[0] = None  # and the repository does not exist
    run, version = drop(stack, b'{"version": 1, "images": 3}', {"a.jpg": GOOD["10_sks cat/a.jpg"]})
    validate_manifest.handler(dropped(MANIFEST, version), stack.context)
    request = {"run": run, "started_at": datetime.now(UTC).isoformat()}

    assert take_inventory.handler(request, stack.context)["status"] == "waiting"


def test_the_accounts_own_runs_correct_the_quote_of_the_next(stack: Stack) -> None:
    """The record as a run leaves it is what the quote learns from."""
    before = [decide(stack, b'{"version": 1}', GOOD) for _ in range(3)]
    records = deployment.deployment(None).records
    for run, answer in before:
        facts = {"observation": {"seconds": round(answer["plan"]["table_seconds"] / 2)}}
        for status in ("TRAINING", "VERIFYING", "COMPLETED"):
            records.advance(run["run_id"], status, facts)
    _, after = decide(stack, b'{"version": 1}', GOOD)
    assert after["plan"]["table_seconds"] == before[0][1]["plan"]["table_seconds"]
    assert after["plan"]["estimated_seconds"] == pytest.approx(after["plan"]["table_seconds"] / 2, abs=1)
