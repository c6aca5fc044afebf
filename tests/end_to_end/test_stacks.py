"""Two stacks in one account, and a stack that is deleted and deployed again."""

from __future__ import annotations

from tests.end_to_end.conftest import Deployer
from tests.end_to_end.journey import Stack, dataset, quick_manifest


def test_two_stacks_live_side_by_side(deployer: Deployer, stack: Stack) -> None:
    # Given a second stack under another project name and role prefix
    other = deployer.deploy("second", ProjectName="second-project", RoleNamePrefix="second")
    deployer.push_image(other, "second")
    mails = len(stack.mails())
    # When a dataset is dropped into the second one only
    prefix = other.drop("side-by-side", dataset(2), quick_manifest())
    record = other.record(prefix)
    # Then only the second one acts
    assert record["status"] == "COMPLETED", record
    assert stack.records(prefix) == []
    assert len(stack.mails()) == mails + 2
    # and after its deletion its bucket and its run table are kept, and it can be deployed again beside them
    deployer.delete("second")
    again = deployer.deploy(
        "second", ProjectName="second-project", RoleNamePrefix="second", BucketName="sagemaker-second-anew"
    )
    deployer.push_image(again, "second")
    assert again.record(again.drop("after", dataset(2), quick_manifest()))["status"] == "COMPLETED"
    assert other.client("s3").head_bucket(Bucket=other.bucket)
    deployer.delete("second")
    assert stack.record(stack.drop("unharmed", dataset(2), quick_manifest()))["status"] == "COMPLETED"
