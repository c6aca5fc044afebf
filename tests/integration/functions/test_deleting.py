"""What docs/operations.md says to delete for good, on a bucket that keeps versions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jmespath

from tests.functions_data import BUCKET
from tests.integration.functions.conftest import Stack

TEXT = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")


def test_every_version_of_a_dataset_is_deleted_and_nothing_else(stack: Stack) -> None:
    [query] = re.findall(r"--query '(.*)' > versions.json", TEXT)
    for content in (b"1", b"2"):
        stack.put("datasets/cats/a.jpg", content)
        stack.put("datasets/dogs/a.jpg", content)
    stack.s3.delete_object(Bucket=BUCKET, Key="datasets/cats/a.jpg")
    found = stack.s3.list_object_versions(Bucket=BUCKET, Prefix="datasets/cats/")

    # As the aws CLI writes it into the file, and reads it from there.
    stack.s3.delete_objects(Bucket=BUCKET, Delete=json.loads(json.dumps(jmespath.search(query, found))))

    left = stack.s3.list_object_versions(Bucket=BUCKET, Prefix="datasets/")
    assert [version["Key"] for version in left["Versions"]] == ["datasets/dogs/a.jpg"] * 2
    assert "DeleteMarkers" not in left
    assert jmespath.search(query, {})["Objects"] == []
