"""A push builds the image; nothing else does."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from local.cli import image_source, retrying, stopping
from local.cli.image_source import NOT_SOURCE, SOURCE, push, wait_for_image
from tests.embedded_aws.setting_faults import Fault, faults, struck
from tests.end_to_end import source
from tests.end_to_end.conftest import Deployer
from tests.end_to_end.journey import Stack, dataset, drop_long_run, eventually, quick_manifest

PROJECT = "image-tests"
PARAMETERS = {"ProjectName": PROJECT, "RoleNamePrefix": PROJECT[:5]}


def _image_of_both(stack: Stack, clone: Path) -> str | None:
    """The address of `latest` once both commits before have an image of their own and the newer one is it."""
    name = stack.outputs["ImageRepositoryName"]
    ecr = stack.client("ecr")
    # Before the images: a build that ends in between has moved `latest`.
    builds = stack.client("codebuild").batch_get_builds(ids=source.builds(stack))["builds"]
    found = ecr.describe_images(repositoryName=name)["imageDetails"]
    digests = {tag: each["imageDigest"] for each in found for tag in each.get("imageTags", [])}
    older, newer = (f"{source.commit(clone, name)}-v25.2.2" for name in ("HEAD~1", "HEAD"))
    if not {older, newer} <= set(digests) or any(each["buildStatus"] == "IN_PROGRESS" for each in builds):
        return None
    assert digests["latest"] == digests[newer]
    (repository,) = ecr.describe_repositories(repositoryNames=[name])["repositories"]
    return f"{repository['repositoryUri']}@{digests['latest']}"


def _asked_for_source(stack: Stack) -> bool:
    """While the upload is waited for."""
    mails = [mail.get_content() for mail in stack.mails(kind="waiting") if "source" in mail["Subject"]]
    return any("\n./dev push-image-source\n" in text and "\n./dev retry " in text for text in mails)


def _told_of(stack: Stack, project: str) -> int:
    """How many images of a project mails tell of; other stacks build meanwhile."""
    return sum(
        f":build/{project}:" in str(mail["X-Attribute-build_id"]) for mail in stack.mails(kind="image-built")
    )


def waiting_source(folder: Path, gate: Path) -> Path:
    """container/ with a build that lasts until the gate is there."""
    shutil.copytree(SOURCE, folder, ignore=NOT_SOURCE)
    buildspec = folder / "buildspec.yml"
    first = "      - export SOURCE_COMMIT="
    wait = f"      - until test -e {gate}; do sleep 0.1; done\n"
    buildspec.write_text(buildspec.read_text().replace(first, wait + first))
    return folder


def test_the_life_of_the_image(
    deployer: Deployer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = deployer.deploy(PROJECT, **PARAMETERS)

    # Given no source yet: a drop is answered with the command that brings it, at once and at its end
    files = dataset(2)
    late = files.popitem()
    prefix = stack.drop("before-the-image", files, quick_manifest(files=[{"path": late[0]}]))
    eventually(lambda: _asked_for_source(stack), "a mail that asks for the source")
    stack.put(prefix + late[0], late[1])
    record = stack.record(prefix)
    assert record["status"] == "FAILED"
    assert "./dev push-image-source" in stack.mail(record["run_id"], "image-missing")
    assert stack.execution_ended(record) == "FAILED"

    # When the source is pushed and the run retried, as that mail says, then the run waits for the push's own build
    gate = tmp_path / "gate"
    account = deployer.account_of(PROJECT)
    commit = push(account, stack.outputs, waiting_source(tmp_path / "source", gate))
    eventually(lambda: source.builds(stack), "the build that the push starts")
    assert retrying.run(account, stack.outputs, record["run_id"], follow=False) == 0
    stack.record(prefix, {"WAITING_FOR_IMAGE"})
    gate.touch()
    record = stack.record(prefix)
    image = pinned = wait_for_image(account, stack.outputs, commit, lambda line: None).uri
    assert (record["status"], record["image"]) == ("COMPLETED", image)
    assert "The training image is being built." in stack.mail(record["run_id"], "waiting")
    built = eventually(
        lambda: [mail.get_content() for mail in stack.mails(kind="image-built")], "the mail of the image"
    )  # also of other stacks
    (text,) = [text for text in built if image.partition("@")[2] in text]
    assert "Tests: image-tests-build-container-image-tests 1 skipped" in text
    after_the_first = len(source.builds(stack))
    assert after_the_first == 1

    # Another branch builds nothing, and neither does a tag
    clone = source.clone(stack, tmp_path)
    source.push_change(clone, "experiment", "experiment.txt", "x")
    source.git(clone, "tag", "v1")
    source.git(clone, "push", "origin", "v1")
    time.sleep(2)
    assert len(source.builds(stack)) == after_the_first
    source.git(clone, "reset", "--hard", "origin/main")

    # Of two pushes in a row the second one's image is the latest; a run that trains meanwhile keeps the one it has
    _, training = drop_long_run(stack, "while-it-is-built")
    source.push_change(clone, "main", "notes.txt", "one")
    source.push_change(clone, "main", "notes.txt", "two")
    image = eventually(lambda: _image_of_both(stack, clone), "an image of each push", 180)
    assert stopping.run(account, stack.outputs, training["run_id"]) == 0
    (job,) = stack.training_jobs(training["run_id"])
    kept = {training["image"], job["AlgorithmSpecification"]["TrainingImage"], pinned}
    assert kept == {pinned} != {image}

    # A broken buildspec on main is mailed, and the image that was there still serves
    broken = "version: 0.2\nphases:\n  build:\n    commands:\n      - exit 3\n"
    source.push_change(clone, "main", "buildspec.yml", broken)
    told = eventually(lambda: stack.mails(kind="image-failed"), "a mail about the failed build")
    assert "Phase: BUILD" in told[0].get_content()
    assert "exit 3" in told[0].get_content()
    prefix = stack.drop("with-the-old-image", dataset(2), quick_manifest())
    record = stack.record(prefix)
    assert record["status"] == "COMPLETED", record
    assert record["image"] == image

    # ./dev push-image-source brings the project's own source, with which the build is well again
    assert image_source.run(account, stack.outputs) == 0
    pushed = account.client("codecommit").get_branch(
        repositoryName=stack.outputs["ImageSourceRepositoryName"], branchName="main"
    )["branch"]["commitId"]
    capsys.readouterr()

    # Another version of Kohya has no image yet: the same command, with nothing to push, builds it once
    stack = deployer.deploy(PROJECT, **PARAMETERS, KohyaVersion="v22.6.2")
    before = len(source.builds(stack))
    for _ in range(2):
        assert image_source.run(account, stack.outputs) == 0
    assert len(source.builds(stack)) == before + 1
    image = image_source.image_tagged(account, stack.outputs, f"{pushed}-v22.6.2")
    assert image is not None
    assert capsys.readouterr().out.count(image) == 2
    record = stack.record(stack.drop("of-the-other-kohya", dataset(2), quick_manifest()))
    assert (record["status"], record["image"]) == ("COMPLETED", image), record
    deployer.delete(PROJECT)


def test_what_the_quota_of_builds_refuses_is_built_after_the_build_before(
    deployer: Deployer, tmp_path: Path
) -> None:
    stack = deployer.deploy("one-build", ProjectName="one-build", RoleNamePrefix="one")
    account = deployer.account_of("one-build")
    project = stack.outputs["ImageBuildProjectName"]
    refused = {
        "code": "AccountLimitExceededException",
        "message": "Cannot have more than 1 builds in queue for the account",
    }

    # Given builds of others use the quota when the source is pushed, and when a run wants to start its build itself
    with faults(stack.endpoint, Fault("call", ("codebuild:StartBuild", project), refused, times=2)) as (
        name,
    ):
        commit = push(account, stack.outputs)
        eventually(lambda: struck(stack.endpoint, name) == 1, "a push that is refused its build")
        prefix = stack.drop("beside-other-builds", dataset(2), quick_manifest())
        waiting = stack.record(prefix, {"WAITING_FOR_IMAGE"})
        assert "Other builds use your account's quota" in stack.mail(waiting["run_id"], "waiting")
        assert source.builds(stack) == []
        # Then it starts it at a later look
        record = stack.record(prefix)
    assert record["status"] == "COMPLETED", record
    assert record["image"] == image_source.image_tagged(account, stack.outputs, f"{commit}-v25.2.2")
    assert len(source.builds(stack)) == 1

    # Given two pushes in a row of which the later one's build is refused
    gate = tmp_path / "gate"
    push(account, stack.outputs, waiting_source(tmp_path / "source", gate))
    eventually(lambda: len(source.builds(stack)) == 2, "the first one's build")
    with faults(stack.endpoint, Fault("call", ("codebuild:StartBuild", project), refused)) as (name,):
        later = push(account, stack.outputs)
        eventually(lambda: struck(stack.endpoint, name) == 1, "the second one's refusal")
    # When the first one's has ended, then the second one's is built, once, and is the latest
    gate.touch()
    uri = wait_for_image(account, stack.outputs, later, lambda line: None).uri
    assert uri == image_source.image_tagged(account, stack.outputs, "latest")
    eventually(lambda: _told_of(stack, project) == 3, "a mail of each image")
    time.sleep(2)
    assert len(source.builds(stack)) == 3
    deployer.delete("one-build")
