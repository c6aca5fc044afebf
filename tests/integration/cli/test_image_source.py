"""container/ arrives in a repository of its own, with git, and the build is found by its commit."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.cli import image_source
from local.cli.account import Account, seconds_between_looks
from local.cli.embedded import Embedded
from local.cli.failure import CommandError

OUTPUTS = {
    "ImageSourceRepositoryName": "source",
    "ImageBuildProjectName": "build",
    "ImageRepositoryName": "image",
}


def git(*arguments: str, at: Path) -> str:
    return subprocess.run(["git", *arguments], cwd=at, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def account(tmp_path: Path) -> Account:
    repository = tmp_path / "home" / "codecommit" / "source.git"
    repository.mkdir(parents=True)
    git("init", "--quiet", "--bare", "--initial-branch=main", at=repository)
    return Account("stack", "us-east-1", Embedded("http://127.0.0.1:1", str(tmp_path / "home"), 0))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "container"
    (source / "package" / "__pycache__").mkdir(parents=True)
    (source / "Dockerfile").write_text("FROM scratch\n")
    (source / "train").write_text("#!/bin/sh\n")
    (source / "train").chmod(0o755)
    (source / "package" / "__pycache__" / "a.pyc").write_text("")
    (source / "package" / "a.py").write_text("")
    return source


def test_the_source_is_the_whole_content_of_main(account: Account, source: Path, tmp_path: Path) -> None:
    commit = image_source.push(account, OUTPUTS, source)
    repository = tmp_path / "home" / "codecommit" / "source.git"
    assert git("rev-parse", "main", at=repository).strip() == commit
    listed = git("ls-tree", "-r", "main", at=repository).splitlines()
    assert [(line.split()[0], line.split("\t")[1]) for line in listed] == [
        ("100644", "Dockerfile"),
        ("100644", "package/a.py"),
        ("100755", "train"),
    ]


def test_an_unchanged_source_is_not_a_new_commit(account: Account, source: Path) -> None:
    assert image_source.push(account, OUTPUTS, source) == image_source.push(account, OUTPUTS, source)


def test_a_changed_source_keeps_the_history_and_drops_what_is_gone(
    account: Account, source: Path, tmp_path: Path
) -> None:
    first = image_source.push(account, OUTPUTS, source)
    (source / "package" / "a.py").unlink()
    (source / "Dockerfile").write_text("FROM other\n")
    second = image_source.push(account, OUTPUTS, source)
    repository = tmp_path / "home" / "codecommit" / "source.git"
    assert git("rev-parse", f"{second}^", at=repository).strip() == first
    assert git("ls-tree", "-r", "--name-only", "main", at=repository).split() == ["Dockerfile", "train"]


def test_a_repository_that_cannot_be_cloned_is_an_error_with_gits_words(
    account: Account, source: Path
) -> None:
    with pytest.raises(CommandError, match=r"git clone failed(.|\n)*does not (exist|appear)"):
        image_source.push(account, {**OUTPUTS, "ImageSourceRepositoryName": "missing"}, source)


class Builds:
    """CodeBuild with builds whose phases pass, one a call."""

    def __init__(self, *builds: dict[str, Any]) -> None:
        self.builds = list(builds)

    def list_builds_for_project(self, **_: Any) -> dict[str, Any]:
        return {"ids": [build["id"] for build in self.builds]}

    def batch_get_builds(self, ids: list[str]) -> dict[str, Any]:
        answer = [dict(build, currentPhase=build["phases"][0]) for build in self.builds if build["id"] in ids]
        for build in self.builds:
            if len(build["phases"]) > 1:
                build["phases"] = build["phases"][1:]
        return {
            "builds": [
                dict(b, buildStatus=b["end"] if b["currentPhase"] == "DONE" else "IN_PROGRESS")
                for b in answer
            ]
        }


def build(name: str, commit: str, end: str = "SUCCEEDED") -> dict[str, Any]:
    return {
        "id": f"build:{name}",
        "sourceVersion": commit,
        "phases": ["QUEUED", "BUILD", "BUILD", "DONE"],
        "end": end,
    }


def test_the_build_of_the_pushed_commit_is_followed_not_another_one() -> None:
    said: list[str] = []
    builds = Builds(build("other", "b" * 40, end="FAILED"), build("mine", "a" * 40))
    found = image_source.follow_build(builds, "build", "a" * 40, said.append, poll=0.0)
    assert (found["id"], found["buildStatus"]) == ("build:mine", "SUCCEEDED")
    assert said == ["build mine: queued", "build mine: build", "build mine: done"]


def test_a_build_that_is_known_is_asked_for_alone_and_busy_aws_is_asked_later() -> None:
    """CodeBuild's limit is the account's: the functions ask it too."""
    refused: Any = {"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}

    asked: list[str] = []

    class Busy(Builds):
        def list_builds_for_project(self, **_: Any) -> dict[str, Any]:
            asked.append("list")
            return super().list_builds_for_project()

        def batch_get_builds(self, ids: list[str]) -> dict[str, Any]:
            asked.append("get")
            if len(asked) == 3:
                raise ClientError(refused, "BatchGetBuilds")
            return super().batch_get_builds(ids)

    builds = Busy(build("other", "b" * 40), build("mine", "a" * 40))
    found = image_source.follow_build(builds, "build", "a" * 40, print, poll=0.0)
    assert (found["id"], found["buildStatus"]) == ("build:mine", "SUCCEEDED")
    assert asked == ["list", "get", "get", "get", "get", "get"]


def test_what_is_refused_for_good_is_not_asked_again() -> None:
    denied: Any = {"Error": {"Code": "AccessDeniedException", "Message": "no"}}

    class Denying(Builds):
        def list_builds_for_project(self, **_: Any) -> dict[str, Any]:
            raise ClientError(denied, "ListBuildsForProject")

    with pytest.raises(ClientError, match="AccessDenied"):
        image_source.follow_build(Denying(), "build", "a" * 40, print, poll=0.0)


def test_of_a_long_log_the_end_is_shown() -> None:
    """A page has at most 10,000 events; from which end it begins is asked for."""
    lines = [{"message": f"line {number}\n"} for number in range(15_000)]

    def get_log_events(startFromHead: bool, **_: Any) -> dict[str, Any]:  # noqa: N803 - boto3's name
        return {"events": lines[:10_000] if startFromHead else lines[-10_000:]}

    logs = SimpleNamespace(get_log_events=get_log_events)
    account: Any = SimpleNamespace(client=lambda service: logs)
    log = image_source.log_of(account, {"logs": {"groupName": "g", "streamName": "s"}})
    assert log.endswith("line 14999")


def test_an_own_account_is_asked_more_rarely_than_the_embedded_aws() -> None:
    own: Any = SimpleNamespace(embedded=None)
    embedded: Any = SimpleNamespace(embedded=object())
    assert seconds_between_looks(own, image_source.SECONDS_BETWEEN_LOOKS) == 10
    assert seconds_between_looks(own) == 5
    assert seconds_between_looks(embedded, image_source.SECONDS_BETWEEN_LOOKS) == 0.25


def test_a_push_that_causes_no_build_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_source, "SECONDS_TO_START_BUILDING", 0.05)
    with pytest.raises(CommandError, match=r"started no build.*replay --dry-run image-source.*Linux/Large"):
        image_source.follow_build(Builds(), "build", "a" * 40, print, poll=0.01)


def test_a_push_that_causes_no_build_during_another_one_names_the_quota(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_source, "SECONDS_TO_START_BUILDING", 0.05)
    other = {**build("other", "b" * 40), "phases": ["BUILD"]}
    with pytest.raises(CommandError, match=r"build:other is under way(.|\n)*Linux/Large environment`"):
        image_source.follow_build(Builds(other), "build", "a" * 40, print, poll=0.01)
