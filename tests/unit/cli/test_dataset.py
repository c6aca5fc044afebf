"""What a folder must be before it is dropped, and how it arrives."""

import random
from pathlib import Path
from typing import Any

import pytest

from local.cli import dataset


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

    def delete_object(self, Bucket: str, Key: str) -> None:  # noqa: N803
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
