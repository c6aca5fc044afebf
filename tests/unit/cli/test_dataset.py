"""What a folder must be before it is dropped, and how it arrives."""

import random
import threading
from pathlib import Path
from typing import Any

import pytest

from local.cli import dataset
from local.cli.interruption import Interrupted


class Bucket:
    """An S3 client that remembers the order of uploads."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def get_paginator(self, operation: str) -> "Bucket":
        assert operation == "list_objects_v2"
        return self

    def paginate(self, Bucket: str, Prefix: str) -> list[dict[str, Any]]:  # noqa: N803
        """One key a page, and an empty page as S3 answers where there is nothing."""
        return [{}, *({"Contents": [{"Key": key}]} for key in self.keys if key.startswith(Prefix))]

    def put_object(self, Bucket: str, Key: str, **_: Any) -> dict[str, str]:  # noqa: N803 - boto3's names
        self.keys.append(Key)
        return {"VersionId": f"version-of-{Key}"}

    def delete_object(self, Bucket: str, Key: str) -> None:  # noqa: N803 - boto3's names
        self.keys.remove(Key)

    def upload_file(self, filename: str, bucket: str, key: str, **_: Any) -> None:
        assert Path(filename).is_file()
        self.keys.append(key)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my cats"
    (folder / "2_sks cat").mkdir(parents=True)
    for name in ("manifest.json", "2_sks cat/a.jpg", "2_sks cat/a.txt", "2_sks cat/b.jpg", ".DS_Store"):
        (folder / name).write_bytes(b"{}")
    return folder


def test_every_visible_file_arrives_under_the_datasets_prefix(folder: Path) -> None:
    bucket = Bucket()
    dropped = dataset.drop(bucket, "photos", folder)
    assert sorted(bucket.keys) == [
        "datasets/my-cats/2_sks cat/a.jpg",
        "datasets/my-cats/2_sks cat/a.txt",
        "datasets/my-cats/2_sks cat/b.jpg",
        "datasets/my-cats/manifest.json",
    ]
    assert dropped.manifest_key == "datasets/my-cats/manifest.json"
    assert dropped.manifest_version == "version-of-datasets/my-cats/manifest.json"
    assert (dropped.files, dropped.size) == (4, 8)


def test_the_manifest_goes_last(folder: Path) -> None:
    (folder / "zebra.jpg").write_bytes(b"{}")
    bucket = Bucket()
    dropped = dataset.drop(bucket, "photos", folder)
    assert bucket.keys[-1] == dropped.manifest_key


def test_ten_files_go_at_a_time_and_what_goes_on_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(17):
        (folder / f"{number}.jpg").write_bytes(b"{}")
    monkeypatch.setattr(dataset, "FILES_A_LINE", 10)
    together, bucket, told = threading.Barrier(dataset.AT_ONCE, timeout=20), Bucket(), list[str]()
    put = bucket.upload_file

    def upload_file(*given: Any, **more: Any) -> None:
        together.wait()  # 20 files: twice ten
        put(*given, **more)

    monkeypatch.setattr(bucket, "upload_file", upload_file)
    dropped = dataset.drop(bucket, "photos", folder, say=told.append)
    assert (dropped.files, bucket.keys[-1]) == (21, dropped.manifest_key)
    assert told == ["uploading 21 files (0.0 MB)", "10 of 20 uploaded", "20 of 20 uploaded"]


@pytest.mark.parametrize("ending", [Interrupted(2), OSError("gone")])
def test_what_interrupts_a_drop_leaves_no_manifest_and_begins_no_other_file(
    folder: Path, ending: BaseException
) -> None:
    for number in range(500):
        (folder / f"{number:03}.jpg").write_bytes(b"{}")

    class Ending(Bucket):
        def upload_file(self, filename: str, bucket: str, key: str, **more: Any) -> None:
            if len(self.keys) >= 20:
                raise ending
            super().upload_file(filename, bucket, key, **more)

    bucket = Ending()
    with pytest.raises(type(ending)):
        dataset.drop(bucket, "photos", folder)
    assert "datasets/my-cats/manifest.json" not in bucket.keys
    assert len(bucket.keys) < 40


def test_the_manifest_goes_anywhere_among_the_rest_where_an_order_is_asked_for(folder: Path) -> None:
    places = set()
    for seed in range(20):
        bucket = Bucket()
        dataset.drop(bucket, "photos", folder, random.Random(seed))
        places.add(bucket.keys.index("datasets/my-cats/manifest.json"))
    assert places == {0, 1, 2, 3}


def test_what_an_earlier_drop_left_in_the_bucket_is_named(folder: Path) -> None:
    bucket = Bucket()
    assert dataset.left_over(bucket, "photos", folder) == []
    dataset.drop(bucket, "photos", folder)
    bucket.keys += ["datasets/my-cats-2/other.jpg", "datasets/my-cats/", "datasets/my-cats/2_sks cat/"]
    bucket.keys += ["datasets/my-cats/.DS_Store", "datasets/my-cats/.git/config"]
    assert dataset.left_over(bucket, "photos", folder) == []
    (folder / "2_sks cat" / "a.jpg").unlink()
    (folder / "2_sks cat" / "b.jpg").rename(folder / "2_sks cat" / "c.jpg")
    assert dataset.left_over(bucket, "photos", folder) == ["2_sks cat/a.jpg", "2_sks cat/b.jpg"]


def test_what_only_the_bucket_holds_is_deleted_and_nothing_else(folder: Path) -> None:
    bucket = Bucket()
    dataset.drop(bucket, "photos", folder)
    (folder / "2_sks cat" / "a.jpg").unlink()
    dataset.delete(bucket, "photos", folder, dataset.left_over(bucket, "photos", folder))
    assert sorted(bucket.keys) == [
        "datasets/my-cats/2_sks cat/a.txt",
        "datasets/my-cats/2_sks cat/b.jpg",
        "datasets/my-cats/manifest.json",
    ]


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("my cats", "my-cats"),
        ("Müller", "Müller"),
        ("Mu\u0308ller", "Müller"),  # as macOS takes it apart
        ("Möller", "Möller"),
        ("猫", "猫"),
        ("Аня", "Аня"),
        ("हिन्दी", "हिन्दी"),  # with marks that are no letters of their own
        ("a/../x (v1)", "x-v1"),
        ("a\tb\u2028c", "a-b-c"),
        ("-.cats.-", "cats"),
        ("🐱", "dataset"),
    ],
)
def test_letters_of_any_script_stay_in_the_prefix(tmp_path: Path, name: str, prefix: str) -> None:
    assert dataset.prefix_of(tmp_path / name) == f"datasets/{prefix}/"
