"""A new run takes over what an earlier one of the same dataset has kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import take_over_latents
from botocore.awsrequest import AWSResponse

from fine_tuning.aws import deployment, sdk
from fine_tuning.run import Run
from fine_tuning.steps import taking_over_latents
from tests.functions_data import BUCKET
from tests.integration.functions.conftest import Stack

DIGEST = "0123456789abcdef"
IMAGES = [f"{number:064x}" for number in range(100)]
CONFIG = 'resolution = "1024,1024"\ncache_latents_to_disk = true\nlearning_rate = {rate}\n'


def planned(
    stack: Stack,
    number: int,
    rate: float = 1e-4,
    images: int = 3,
    config: str = CONFIG,
    by_user: Sequence[str] = (),
    kohya_version: str = "v25.2.2",
) -> Run:
    """A run of datasets/cats/ that is about to start; each has its own rate."""
    run = Run(
        f"cats-00000000000{number}", BUCKET, "datasets/cats/", "datasets/cats/manifest.json", f"v{number}"
    )
    files = [
        {"path": f"{at}.jpg", "size": 1, "etag": "e", "version_id": "v", "sha256": sha256, "kind": "image"}
        for at, sha256 in enumerate(IMAGES[:images])
    ]
    layout = [
        {"folder": "1_cat", "files": [{"source": each["path"], "target": each["path"]} for each in files]}
    ]
    plan = {
        "base_model": {"kind": "hub", "id": "m"},
        "kohya_version": kohya_version,
        "layout": layout,
        "chosen_by_user": list(by_user),
    }
    stack.put(run.plan_key, json.dumps(plan).encode())
    stack.put(run.config_key, config.format(rate=rate).encode())
    stack.put(run.inventory_key, "".join(f"{json.dumps(each)}\n" for each in files).encode())
    records = deployment.deployment(None).records
    records.create(run, f"arn:execution:{run.run_id}")
    return run


def keep(stack: Stack, run: Run, *images: str, digest: str = DIGEST) -> None:
    """What the run's job leaves among its checkpoints."""
    stack.put(f"{run.checkpoint_prefix}slot-a/complete.json", b"{}")
    for sha256 in images:
        content = f"{run.run_id} {sha256}".encode()
        stack.put(f"{run.checkpoint_prefix}latents/{digest}/{sha256}_1024x1024_sdxl.npz", content)


def start(stack: Stack, run: Run) -> dict[str, Any]:
    answer: dict[str, Any] = take_over_latents.handler({"run": run.as_payload()}, stack.context)
    return answer


def latents_of(stack: Stack, run: Run) -> dict[str, bytes]:
    """Name → content."""
    prefix = f"{run.checkpoint_prefix}latents/{DIGEST}/"
    return {key.removeprefix(prefix): stack.read(key) for key in stack.keys(run.checkpoint_prefix)}


def test_given_a_run_with_another_learning_rate_then_it_has_the_latents_of_the_run_before(
    stack: Stack,
) -> None:
    first, second = planned(stack, 1), planned(stack, 2, rate=5e-5)
    assert start(stack, first) == {"images": 0, "of": 3, "runs": []}
    keep(stack, first, *IMAGES[:3])

    answer = start(stack, second)

    assert answer == {"images": 3, "of": 3, "runs": [first.run_id]}
    assert stack.record(second.run_id)["latents"] == answer
    assert "latents" not in stack.record(first.run_id)
    # The latents, and no state of the trainer's.
    assert latents_of(stack, second) == {
        f"{sha256}_1024x1024_sdxl.npz": f"{first.run_id} {sha256}".encode() for sha256 in IMAGES[:3]
    }


def test_given_another_resolution_then_nothing_is_taken(stack: Stack) -> None:
    first = planned(stack, 1)
    start(stack, first)
    keep(stack, first, *IMAGES[:3])
    second = planned(stack, 2, config=CONFIG.replace("1024", "768"))

    assert start(stack, second)["images"] == 0
    assert stack.keys(second.checkpoint_prefix) == []


IN_MEMORY = 'resolution = "1024,1024"\ncache_latents = true\n'


@pytest.mark.parametrize(
    "where_the_trainer_holds_them",
    [
        pytest.param({"images": 99, "config": IN_MEMORY}, id="fewer than 100 images"),
        pytest.param(
            {"config": 'resolution = "1024,1024"\ncache_latents = false\n', "by_user": ["cache_latents"]},
            id="not cached",
        ),
        pytest.param(
            {"config": f"{IN_MEMORY}cache_latents_to_disk = false\n", "by_user": ["cache_latents_to_disk"]},
            id="in memory alone",
        ),
        pytest.param({"kohya_version": "v22.6.2"}, id="beside the images"),
    ],
)
def test_given_a_trainer_that_reads_none_then_nothing_is_copied_and_no_other_run_forgotten(
    stack: Stack, where_the_trainer_holds_them: dict[str, Any]
) -> None:
    given: dict[str, Any] = {"images": 100, "config": IN_MEMORY, **where_the_trainer_holds_them}
    kept = planned(stack, 1, images=100, config=IN_MEMORY)
    without = planned(stack, 2, **given)
    start(stack, kept)
    keep(stack, kept, *IMAGES)
    items = stack.dynamodb.scan(TableName="runs")["Items"]

    assert start(stack, without) == {"images": 0, "of": given["images"], "runs": []}
    assert stack.keys(without.checkpoint_prefix) == []
    assert stack.dynamodb.scan(TableName="runs")["Items"] == items


def test_given_100_images_then_they_are_taken_over(stack: Stack) -> None:
    first, second = (planned(stack, number, images=100, config=IN_MEMORY) for number in (1, 2))
    start(stack, first)
    keep(stack, first, *IMAGES)

    assert start(stack, second) == {"images": 100, "of": 100, "runs": [first.run_id]}


def test_given_other_images_then_the_common_ones_are_taken(stack: Stack) -> None:
    first, second = planned(stack, 1, images=2), planned(stack, 2)
    start(stack, first)
    keep(stack, first, *IMAGES[:2], "ff" * 32)

    assert start(stack, second) == {"images": 2, "of": 3, "runs": [first.run_id]}
    assert sorted(latents_of(stack, second)) == [f"{sha256}_1024x1024_sdxl.npz" for sha256 in IMAGES[:2]]


def test_given_a_last_run_that_kept_nothing_then_those_of_the_one_before_it_are_taken(stack: Stack) -> None:
    runs = [planned(stack, number) for number in range(1, 4)]
    start(stack, runs[0])
    start(stack, runs[1])
    keep(stack, runs[0], *IMAGES[:3])

    assert start(stack, runs[2]) == {"images": 3, "of": 3, "runs": [runs[0].run_id]}


def test_given_two_runs_that_have_some_then_each_image_is_copied_once(stack: Stack) -> None:
    runs = [planned(stack, number) for number in range(1, 4)]
    start(stack, runs[0])
    start(stack, runs[1])
    keep(stack, runs[0], *IMAGES[:3])
    keep(stack, runs[1], IMAGES[0])

    assert start(stack, runs[2]) == {"images": 3, "of": 3, "runs": [runs[1].run_id, runs[0].run_id]}
    assert latents_of(stack, runs[2])[f"{IMAGES[0]}_1024x1024_sdxl.npz"].startswith(runs[1].run_id.encode())


def test_given_checkpoints_that_have_expired_then_nothing_is_taken(stack: Stack) -> None:
    first, second = planned(stack, 1), planned(stack, 2)
    start(stack, first)
    keep(stack, first, *IMAGES[:3])
    for key in stack.keys(first.checkpoint_prefix):
        stack.s3.delete_object(Bucket=BUCKET, Key=key)

    assert start(stack, second) == {"images": 0, "of": 3, "runs": []}


def test_a_repeated_invocation_finds_what_is_there_and_forgets_no_run(stack: Stack) -> None:
    first, second, third = (planned(stack, number) for number in range(1, 4))
    start(stack, first)
    keep(stack, first, *IMAGES[:3])
    start(stack, second)
    stack.s3.delete_object(Bucket=BUCKET, Key=stack.keys(f"{second.checkpoint_prefix}latents/")[0])

    assert start(stack, second) == {"images": 1, "of": 3, "runs": [first.run_id]}
    (item,) = [
        each
        for each in stack.dynamodb.scan(TableName="runs")["Items"]
        if each["run_id"]["S"].startswith("latents#")
    ]
    assert (item["newest"]["S"], item["earlier"]["S"]) == (second.run_id, first.run_id)
    assert start(stack, third) == {"images": 3, "of": 3, "runs": [second.run_id]}


def test_a_retry_has_its_first_runs_and_is_not_its_own_source(stack: Stack) -> None:
    first = planned(stack, 1)
    start(stack, first)
    keep(stack, first, *IMAGES[:3])
    retry = first.retry(2)
    for key in ("plan_key", "config_key", "inventory_key"):
        stack.put(getattr(retry, key), stack.read(getattr(first, key)))

    assert start(stack, retry) == {"images": 0, "of": 3, "runs": []}


@pytest.mark.parametrize("operation", ["CopyObject", "ListObjectsV2", "GetObject"])
def test_given_that_s3_refuses_then_the_run_goes_on(
    stack: Stack, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = planned(stack, 1), planned(stack, 2)
    start(stack, first)
    keep(stack, first, *IMAGES[:3])

    def refuse(**_: Any) -> AWSResponse:
        response = AWSResponse("https://s3", 403, {}, None)
        response._content = b"<Error><Code>AccessDenied</Code></Error>"
        return response

    sdk.client("s3").meta.events.register_first(f"before-send.s3.{operation}", refuse)

    assert start(stack, second)["images"] == 0
    assert "latents" not in stack.record(second.run_id)
    (warning,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert "AccessDenied" in str(warning.__dict__["problem"])


def test_given_one_that_expires_meanwhile_then_the_others_are_copied(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking_over_latents, "THREADS", 1)  # so that it is the first one that is missing
    first, second = planned(stack, 1), planned(stack, 2)
    start(stack, first)
    keep(stack, first, *IMAGES[:3])
    objects = deployment.deployment(None).objects
    listed = objects.list_below(f"{first.checkpoint_prefix}latents/")
    stack.s3.delete_object(Bucket=BUCKET, Key=listed[0].key)
    monkeypatch.setattr(objects, "list_below", lambda prefix: listed if first.run_id in prefix else [])

    assert start(stack, second) == {"images": 2, "of": 3, "runs": [first.run_id]}


def test_given_that_the_time_is_over_then_the_rest_is_left_to_the_gpu(
    stack: Stack, at: Callable[[datetime], None]
) -> None:
    first, second = planned(stack, 1), planned(stack, 2)
    start(stack, first)
    keep(stack, first, *IMAGES[:3])
    moments = iter([datetime.now(UTC), *[datetime.now(UTC) + timedelta(seconds=s) for s in (59, 61, 61)]])
    deployment.deployment(None).clock = lambda: next(moments)

    answer = start(stack, second)

    assert answer == {"images": 1, "of": 3, "runs": [first.run_id]}
