"""A push builds the image; nothing else does."""

from __future__ import annotations

import time
from pathlib import Path

from tests.end_to_end import source
from tests.end_to_end.conftest import Deployer
from tests.end_to_end.journey import dataset, eventually, quick_manifest

PROJECT = "image-tests"


def test_the_life_of_the_image(deployer: Deployer, tmp_path: Path) -> None:
    stack = deployer.deploy(PROJECT, ProjectName=PROJECT, RoleNamePrefix=PROJECT[:5])

    # Given no source yet: a drop is answered with the command that brings it
    prefix = stack.drop("before-the-image", dataset(2), quick_manifest())
    record = stack.record(prefix)
    assert record["status"] == "FAILED"
    assert "./dev push-image-source" in stack.mail(record["run_id"], "image-missing")
    assert stack.execution_ended(record) == "FAILED"

    # When the source is pushed, the push alone makes an image
    image = deployer.push_image(stack, PROJECT)
    assert "@sha256:" in image
    told = eventually(lambda: stack.mails(kind="image-built"), "a mail about the built image", 30)
    assert image.partition("@")[2] in told[0].get_content()
    after_the_first = len(source.builds(stack))
    assert after_the_first == 1

    # Another branch builds nothing
    clone = source.clone(stack, tmp_path)
    source.push_change(clone, "experiment", "experiment.txt", "x")
    time.sleep(2)
    assert len(source.builds(stack)) == after_the_first

    # A broken buildspec on main is mailed, and the image that was there still serves
    broken = "version: 0.2\nphases:\n  build:\n    commands:\n      - exit 3\n"
    source.push_change(clone, "main", "buildspec.yml", broken)
    told = eventually(lambda: stack.mails(kind="image-failed"), "a mail about the failed build", 30)
    assert "Phase: BUILD" in told[0].get_content()
    assert "exit 3" in told[0].get_content()
    prefix = stack.drop("with-the-old-image", dataset(2), quick_manifest())
    record = stack.record(prefix)
    assert record["status"] == "COMPLETED", record
    assert record["image"] == image
    deployer.delete(PROJECT)
