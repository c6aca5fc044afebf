"""When an upload is over, and how its inspection is divided."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_tuning import file_kinds, inventory, shards, upload
from fine_tuning.inventory import InventoryFile, ListedObject
from fine_tuning.manifest import Manifest

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def listed(path: str, size: int = 10, age: float = 3600) -> ListedObject:
    return ListedObject(InventoryFile(path, size, "e", "v"), NOW - timedelta(seconds=age))


def manifest(**keys: Any) -> Manifest:
    return Manifest.from_document({"version": 1, **keys})


FIRST = listed("manifest.json", age=0)
CASES = [
    # manifest, objects, seconds since the start, expected status, expected missing
    ({}, [], 0, "waiting", 0),
    ({}, [FIRST], 0, "waiting", 0),
    ({}, [listed("manifest.json", age=59)], 59, "waiting", 0),
    ({}, [listed("manifest.json", age=60)], 60, "complete", 0),
    ({}, [FIRST, listed("a.jpg")], 0, "waiting", 0),
    ({"files": [{"path": "a.jpg"}]}, [FIRST, listed("a.jpg")], 0, "complete", 0),
    ({}, [listed("a.jpg")], 0, "complete", 0),
    ({}, [listed("a.jpg"), listed("b.jpg", age=10)], 0, "waiting", 0),
    ({}, [listed("a.jpg", age=10)], 3600, "complete", 0),
    ({"files": [{"path": "a.jpg"}]}, [], 0, "waiting", 1),
    ({"files": [{"path": "a.jpg"}]}, [listed("a.jpg", age=0)], 0, "complete", 0),
    ({"files": [{"path": "a.jpg", "size": 11}]}, [listed("a.jpg")], 0, "waiting", 1),
    ({"files": [{"path": "a.jpg"}, {"path": "b"}]}, [listed("a.jpg")], 3600, "expired", 1),
    ({"files": [{"path": "manifest.json"}]}, [], 0, "complete", 0),
    ({"images": 3}, [listed("a.jpg"), listed("a.txt")], 0, "waiting", 2),
    ({"images": 1}, [listed("a.jpg")], 0, "complete", 0),
    ({"images": 3}, [listed("a.jpg")], 3600, "expired", 2),
]


@pytest.mark.parametrize(("keys", "objects", "seconds", "status", "missing"), CASES)
def test_completeness(
    keys: dict[str, Any], objects: list[ListedObject], seconds: int, status: str, missing: int
) -> None:
    started_at = NOW - timedelta(seconds=seconds)
    state = upload.completeness(objects, manifest(**keys), started_at, NOW, 60, 3600)
    assert (state.status, state.missing) == (status, missing)
    assert (state.wait_seconds > 0) == (status == "waiting")
    assert bool(state.findings) == (status != "complete" and missing > 0)


def test_the_wait_ends_when_the_newest_object_has_settled() -> None:
    state = upload.completeness([listed("a.jpg", age=20)], manifest(), NOW, NOW, 60, 3600)
    assert 40 <= state.wait_seconds <= 41


@pytest.mark.parametrize("settle_seconds", [0, 1, 7, 60, 120])
@pytest.mark.parametrize("keys", [{}, {"images": 3}], ids=["objects-keep-coming", "images-never-come"])
def test_a_day_of_waiting_stays_far_below_the_flows_longest_history(
    settle_seconds: int, keys: dict[str, Any]
) -> None:
    day, looks, waits = 24 * 3600, 0, [0]
    now = NOW
    while True:
        fresh = ListedObject(InventoryFile("a.jpg", 1, "e", "v"), now)
        state = upload.completeness([fresh], manifest(**keys), NOW, now, settle_seconds, day)
        if state.status != "waiting":
            break
        looks += 1
        waits.append(state.wait_seconds)
        now += timedelta(seconds=state.wait_seconds)
    assert 9 * looks < 14_000
    assert max(waits) <= 60
    if not keys:
        assert waits[1:2] == ([min(settle_seconds, 60)] if settle_seconds else [])


def test_a_long_wait_is_looked_at_less_and_less_often() -> None:
    def wait(waited: int, settle_seconds: int = 60) -> int:
        started_at = NOW - timedelta(seconds=waited)
        return upload.completeness(
            [], manifest(images=1), started_at, NOW, settle_seconds, 86400
        ).wait_seconds

    assert [wait(waited) for waited in (0, 50, 100, 600, 7200)] == [5, 5, 10, 60, 60]
    assert [wait(waited, settle_seconds=2) for waited in (0, 20, 100)] == [2, 2, 10]


def test_the_manifest_and_folder_markers_are_no_files_of_the_dataset_but_the_toml_is() -> None:
    objects = [listed(p) for p in ("manifest.json", "", "10_cat/", "10_cat/a.jpg", "kohya-sdxl-config.toml")]
    assert [o.file.path for o in inventory.without_manifest(objects)] == [
        "10_cat/a.jpg",
        "kohya-sdxl-config.toml",
    ]


PATHS = st.lists(
    st.sampled_from([f"{n}{e}" for n in range(20) for e in (".jpg", ".txt", ".caption")]), unique=True
)


@given(PATHS, st.integers(2, 7))
def test_shards_hold_every_file_once_and_never_part_an_image_from_its_caption(
    paths: list[str], size: int
) -> None:
    files = [InventoryFile(path, 1, "e", "v") for path in sorted(paths)]
    divided = shards.into_shards(files, size)
    assert sorted(f.path for shard in divided for f in shard) == sorted(paths)
    homes: dict[str, set[int]] = {}
    for number, shard in enumerate(divided):
        assert shard
        for one in shard:
            homes.setdefault(file_kinds.stem_of(one.path), set()).add(number)
    assert all(len(numbers) == 1 for numbers in homes.values())


def test_lines_are_read_back_as_they_were_written() -> None:
    files = [
        inventory.with_size(inventory.inspected(InventoryFile("ü.jpg", 1, "e", None), "s", "image"), 3, 4),
        inventory.inspected(InventoryFile("b.txt", 2, "e", "v"), "s", "caption"),
    ]
    assert inventory.from_lines(inventory.as_lines(files)) == sorted(files, key=lambda f: f.path)
