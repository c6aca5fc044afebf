"""100,000 images pass: docs/scale.md's sums, on the real definition and the real code."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from fine_tuning import shards
from fine_tuning.inventory import InventoryFile
from fine_tuning.run import MANIFEST_NAME, Run, result_key_of
from tests import judging
from tests.contract.definitions import state_machine, template
from tests.contract.test_state_machine import HISTORY, ITERATION, RETRY, TASK, rest_of_the_longest
from tests.functions_data import RUN, image_bytes

PAYLOAD = 256 * 1024  # bytes


def files(images: int) -> list[InventoryFile]:
    return [
        InventoryFile(f"1_sks cat/{number:06}{suffix}", 1, "etag", "version")
        for number in range(images)
        for suffix in (".jpg", ".txt")
    ]


def shards_of(images: int, size: int | None = None) -> int:
    default = int(template()["Parameters"]["ShardSize"]["Default"])
    return len(shards.into_shards(files(images), size or default))


def largest_payload(shards: int) -> int:
    """Of the keys of all results, for a run with the longest name that a run can have."""
    run = Run.of_manifest("b", f"datasets/{'x' * 99}/{MANIFEST_NAME}", "v").retry(99)
    return len(json.dumps({"results": [{"key": result_key_of(run.shard_key(n))} for n in range(shards)]}))


def test_an_iteration_of_the_map_is_one_task() -> None:
    (state,) = state_machine()["States"]["InspectShards"]["ItemProcessor"]["States"].values()
    assert state["Type"] == "Task"


def test_100_000_images_fit_payload_and_history_though_each_shard_be_retried_once() -> None:
    shards = shards_of(100_000)
    assert shards == 1_000
    assert largest_payload(shards) < PAYLOAD / 2
    assert shards * (ITERATION + TASK + RETRY) + rest_of_the_longest() < HISTORY


def test_no_dataset_and_no_shard_size_make_more_shards_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert largest_payload(shards.MOST_SHARDS) < PAYLOAD
    assert shards.MOST_SHARDS * (ITERATION + TASK + RETRY) + rest_of_the_longest() <= HISTORY
    # A hundredth of it, because three hundred thousand images take a while.
    monkeypatch.setattr(shards, "MOST_SHARDS", most := shards.MOST_SHARDS // 100)
    for images, size in ((1_000, 2), (3_000, 200)):
        assert most / 2 < shards_of(images, size) <= most


def test_every_image_and_caption_is_read_once(monkeypatch: object) -> None:
    read: Counter[str] = Counter()

    class Counting(judging.MemoryObjects):
        def read(self, key: str, version: str | None = None) -> bytes:
            read[key] += 1
            return super().read(key, version)

        def size(self, key: str, version: str | None = None) -> int:
            return len(self.contents[key])

    monkeypatch.setattr(judging, "MemoryObjects", Counting)  # type: ignore[attr-defined]
    pictures = {f"10_sks cat/{n}.jpg": image_bytes(1024 + n, 1024) for n in range(5)}
    captions = {f"10_sks cat/{n}.txt": b"sks cat" for n in range(5)}
    report = judging.judged({**pictures, **captions}, {"config": {"max_train_epochs": 1}})
    assert report["accepted"]
    of_dataset = {path: read[RUN.dataset_prefix + path] for path in (*pictures, *captions)}
    assert set(of_dataset.values()) == {1}
