"""Two stacks in one account, and a stack that is deleted and deployed again."""

from __future__ import annotations

from tests.end_to_end.conftest import Deployer
from tests.end_to_end.journey import Stack, dataset, quick_manifest

NAMES = {"ProjectName": "second-project", "RoleNamePrefix": "second"}


def test_two_stacks_live_side_by_side(deployer: Deployer, stack: Stack) -> None:
    # Given a second stack under another project name and role prefix
    other = deployer.deploy("second", **NAMES)
    deployer.push_image(other, "second")
    mails = len(stack.mails_of_runs())
    # When a dataset is dropped into the second one only
    prefix = other.drop("side-by-side", dataset(2), quick_manifest())
    record = other.record(prefix)
    # Then only the second one acts
    assert record["status"] == "COMPLETED", record
    assert stack.records(prefix) == []
    assert [mail["X-Attribute-kind"] for mail in stack.mails_of_runs()[mails:]] == ["started", "completed"]
    # and after its deletion its bucket and its models are still there
    deployer.delete("second")
    bucket = other.bucket
    assert other.client("s3").list_objects_v2(Bucket=bucket, Prefix="runs/")["KeyCount"] > 0
    # It can be deployed again beside what was kept, or under the same names once that is gone
    again = deployer.deploy("second", **NAMES, BucketName="sagemaker-second-anew")
    deployer.delete("second")
    empty_and_delete(again)
    empty_and_delete(other)
    again = deployer.deploy("second", **NAMES)
    assert again.bucket == bucket
    deployer.push_image(again, "second")
    assert again.record(again.drop("after", dataset(2), quick_manifest()))["status"] == "COMPLETED"
    deployer.delete("second")
    assert stack.record(stack.drop("unharmed", dataset(2), quick_manifest()))["status"] == "COMPLETED"


def empty_and_delete(stack: Stack) -> None:
    """What docs/operations.md tells a person who wants nothing to stay."""
    s3 = stack.client("s3")
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=stack.bucket):
        for each in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
            s3.delete_object(Bucket=stack.bucket, Key=each["Key"], VersionId=each["VersionId"])
    s3.delete_bucket(Bucket=stack.bucket)
