"""When an upload is over, and how its inspection is divided."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_tuning import file_kinds, inventory, shards, upload
from fine_tuning.inventory import InventoryFile, ListedObject, UnfinishedUpload
from fine_tuning.manifest import Manifest
from fine_tuning.upload import Completeness, Sighting

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def listed(path: str, size: int = 10, age: float = 3600) -> ListedObject:
    return ListedObject(InventoryFile(path, size, "e", "v"), NOW - timedelta(seconds=age))


def manifest(**keys: Any) -> Manifest:
    return Manifest.from_document({"version": 1, **keys})


def begun(path: str, age: float = 30) -> UnfinishedUpload:
    return UnfinishedUpload(path, NOW - timedelta(seconds=age))


def completeness(
    objects: list[ListedObject],
    keys: dict[str, Any],
    quiet: float = 0,
    waited: float = 0,
    settle_seconds: int = 60,
    upload_wait_seconds: int = 3600,
    unfinished: Sequence[UnfinishedUpload] = (),
) -> Completeness:
    """A look `waited` seconds after the start at a listing that has been the same for `quiet` seconds."""
    unchanged_since, started_at = (NOW - timedelta(seconds=seconds) for seconds in (quiet, waited))
    return upload.completeness(
        objects,
        unfinished,
        unchanged_since,
        manifest(**keys),
        started_at,
        NOW,
        settle_seconds,
        upload_wait_seconds,
    )


FIRST = listed("manifest.json", age=0)
CASES = [
    # manifest, objects, seconds without change, seconds since the start, expected status, expected findings
    ({}, [], 0, 0, "waiting", 0),
    ({}, [FIRST], 0, 0, "waiting", 0),
    ({}, [FIRST], 59, 59, "waiting", 0),
    ({}, [FIRST], 60, 60, "complete", 0),
    ({}, [FIRST, listed("a.jpg")], 0, 0, "waiting", 0),
    ({"files": [{"path": "a.jpg"}]}, [FIRST, listed("a.jpg")], 0, 0, "complete", 0),
    # However old an object calls itself.
    ({}, [listed("a.jpg")], 0, 0, "waiting", 0),
    ({}, [listed("a.jpg"), listed("b.jpg", age=10)], 60, 0, "complete", 0),
    ({}, [listed("a.jpg", age=10)], 10, 3600, "complete", 0),
    ({"files": [{"path": "a.jpg"}]}, [], 0, 0, "waiting", 1),
    ({"files": [{"path": "a.jpg"}]}, [listed("a.jpg", age=0)], 0, 0, "complete", 0),
    ({"files": [{"path": "a.jpg", "size": 11}]}, [listed("a.jpg")], 0, 0, "waiting", 1),
    ({"files": [{"path": "a.jpg"}, {"path": "b"}]}, [listed("a.jpg")], 0, 3600, "expired", 1),
    ({"files": [{"path": "manifest.json"}]}, [], 0, 0, "complete", 0),
    ({"images": 3}, [listed("a.jpg"), listed("a.txt")], 0, 0, "waiting", 1),
    ({"images": 1}, [listed("a.jpg")], 59, 0, "waiting", 0),
    ({"images": 1}, [listed("a.jpg")], 60, 0, "complete", 0),
    ({"images": 3}, [listed("a.jpg")], 0, 3600, "expired", 1),
]


@pytest.mark.parametrize(("keys", "objects", "quiet", "waited", "status", "missing"), CASES)
def test_completeness(
    keys: dict[str, Any], objects: list[ListedObject], quiet: int, waited: int, status: str, missing: int
) -> None:
    state = completeness(objects, keys, quiet, waited)
    assert (state.status, len(state.findings)) == (status, missing)
    assert (state.wait_seconds > 0) == (status == "waiting")


def test_the_wait_ends_when_the_upload_has_been_quiet_for_long_enough() -> None:
    assert completeness([listed("a.jpg")], {}, quiet=20).wait_seconds == 40


UNFINISHED = [
    # manifest, objects, the unfinished upload, seconds since the start, expected status
    ({}, [listed("a.jpg")], begun("b.jpg"), 600, "waiting"),
    ({}, [listed("a.jpg")], begun("b.jpg"), 3600, "expired"),
    ({"images": 1}, [listed("a.jpg")], begun("a.txt"), 600, "waiting"),
    # Another version of a file that is there.
    ({}, [listed("a.jpg", age=31)], begun("a.jpg", age=30), 600, "waiting"),
    # Given up: the same file was uploaded anew, or it lies there for longer than any file is waited for.
    ({}, [listed("a.jpg", age=29)], begun("a.jpg", age=30), 600, "complete"),
    ({}, [listed("a.jpg")], begun("b.jpg", age=3600), 600, "complete"),
    # The upload that became the object while S3 was asked for both.
    ({}, [listed("a.jpg", age=30)], begun("a.jpg", age=30), 600, "complete"),
    ({}, [listed("a.jpg")], begun("manifest.json"), 600, "complete"),
    ({"files": [{"path": "a.jpg"}]}, [listed("a.jpg")], begun("b.jpg"), 600, "complete"),
]


@pytest.mark.parametrize(("keys", "objects", "unfinished", "waited", "status"), UNFINISHED)
def test_a_file_whose_upload_has_begun_is_waited_for_unless_it_was_given_up(
    keys: dict[str, Any], objects: list[ListedObject], unfinished: UnfinishedUpload, waited: int, status: str
) -> None:
    state = completeness(objects, keys, quiet=120, waited=waited, unfinished=[unfinished])
    assert state.status == status
    if status != "complete":
        (finding,) = state.findings
        assert (finding.code, finding.path) == ("upload-unfinished", unfinished.path)
        assert "begun at 11:59:30 UTC" in finding.message


def test_an_upload_that_goes_on_unseen_is_not_told_as_standing_still_at_once() -> None:
    def stands_still(quiet: int) -> bool:
        return completeness([listed("a.jpg")], {}, quiet, 600, unfinished=[begun("b.jpg")]).stands_still

    assert [stands_still(quiet) for quiet in (60, 599, 600)] == [False, False, True]
    assert completeness([], {"images": 1}, quiet=60).stands_still


def test_a_listing_has_been_the_same_since_the_first_look_that_found_it_so() -> None:
    later, latest = NOW + timedelta(seconds=60), NOW + timedelta(seconds=120)
    first = Sighting.of([listed("a.jpg")], NOW, None)
    assert first.since == NOW
    assert Sighting.of([listed("a.jpg")], later, first) == first
    assert Sighting.from_document(first.as_document()) == first
    other = Sighting.of([listed("a.jpg"), listed("b.jpg")], later, first)
    assert other.since == later
    # An object of the same name and size is another one.
    anew = ListedObject(InventoryFile("a.jpg", 10, "e", "v2"), NOW)
    assert Sighting.of([anew], latest, first).since == latest


def test_files_that_take_longer_than_the_settle_time_are_all_waited_for() -> None:
    """As S3 tells of 12 MB photographs, ten at a time over 1 MB/s: each is dated by the beginning of its upload."""
    before, status, looked_at, seconds = None, "waiting", [], 0
    while status == "waiting":
        now = NOW + timedelta(seconds=seconds)
        over, at = divmod(seconds, 120)
        arrived = [
            ListedObject(InventoryFile(f"{n}.jpg", 1, "e", "v"), NOW + timedelta(seconds=120 * (n // 10)))
            for n in range(min(10 * over, 30))
        ]
        going = [UnfinishedUpload(f"{10 * over + n}.jpg", now - timedelta(seconds=at)) for n in range(10)]
        before = Sighting.of([*arrived, FIRST], now, before)
        unfinished = going if over < 3 else []
        state = upload.completeness(
            [*arrived, FIRST], unfinished, before.since, manifest(), NOW, now, 60, 3600
        )
        status, looked_at = state.status, [*looked_at, seconds]
        assert not state.stands_still
        seconds += state.wait_seconds
    assert len(arrived) == 30
    assert 420 <= looked_at[-1] < 540
    assert len(looked_at) < 40


@pytest.mark.parametrize("settle_seconds", [0, 1, 7, 60, 120])
@pytest.mark.parametrize("keys", [{}, {"images": 3}], ids=["objects-keep-coming", "images-never-come"])
def test_a_day_of_waiting_stays_far_below_the_flows_longest_history(
    settle_seconds: int, keys: dict[str, Any]
) -> None:
    day, looks, waits = 24 * 3600, 0, [0]
    now = NOW
    while True:
        fresh = ListedObject(InventoryFile("a.jpg", 1, "e", "v"), now)
        state = upload.completeness([fresh], [], now, manifest(**keys), NOW, now, settle_seconds, day)
        if state.status != "waiting":
            break
        looks += 1
        waits.append(state.wait_seconds)
        now += timedelta(seconds=state.wait_seconds)
    assert 9 * looks < 7_500
    assert max(waits) <= 120
    if not keys:
        assert waits[1:2] == ([min(settle_seconds, 120)] if settle_seconds else [])


def test_a_long_wait_is_looked_at_less_and_less_often() -> None:
    def wait(waited: int, settle_seconds: int = 60) -> int:
        return completeness([], {"images": 1}, waited, waited, settle_seconds, 86400).wait_seconds

    assert [wait(waited) for waited in (0, 50, 100, 600, 7200)] == [5, 5, 10, 60, 120]
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
