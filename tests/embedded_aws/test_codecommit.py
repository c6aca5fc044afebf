"""CodeCommit: git repositories that a plain git push reaches, and the events of pushes."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.embedded_aws.running import RunningEmbeddedAws, wait_for
from tests.embedded_aws.training import Events

DETAIL_TYPE = "CodeCommit Repository State Change"


class Source:
    """A working copy whose remote is an emulated repository."""

    def __init__(self, aws: RunningEmbeddedAws, name: str, folder: Path) -> None:
        self.aws, self.name, self.folder = aws, name, folder
        self.codecommit = aws.client("codecommit")
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("remote", "add", "origin", f"file://{aws.home}/codecommit/{name}.git")

    def create(self) -> None:
        self.codecommit.create_repository(repositoryName=self.name)

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(self.folder), *identity, *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, message: str = "change", **files: str) -> str:
        """Commit files (`name="text"`, __ for a dot) and give the commit."""
        for name, text in files.items():
            (self.folder / name.replace("__", ".")).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def push(self, *what: str) -> None:
        self.git("push", "--quiet", "origin", *(what or ("main",)))


@pytest.fixture
def source(aws: RunningEmbeddedAws, unique: str, tmp_path: Path) -> Source:
    made = Source(aws, unique, tmp_path / "source")
    made.create()
    return made


def pushed(events: Events, repository: str, number: int) -> list[dict[str, Any]]:
    """The repository's first events, as soon as there are `number` of them."""
    found: list[dict[str, Any]] = wait_for(
        lambda: (seen := events.where(repositoryName=repository)) and len(seen) >= number and seen
    )
    return found


def test_every_push_is_told_also_the_first(source: Source) -> None:
    events = Events(source.aws, source.name, DETAIL_TYPE)
    first = source.commit("one")
    source.push()
    created = pushed(events, source.name, 1)[0]
    second = source.commit("two")
    source.push()
    updated = pushed(events, source.name, 2)[1]

    assert created["event"] == "referenceCreated"
    assert created["referenceType"] == "branch"
    assert created["referenceName"] == "main"
    assert created["referenceFullName"] == "refs/heads/main"
    assert created["commitId"] == first
    assert "oldCommitId" not in created
    assert (updated["event"], updated["commitId"], updated["oldCommitId"]) == (
        "referenceUpdated",
        second,
        first,
    )


def test_branches_with_slashes_tags_and_deletions_are_told(source: Source) -> None:
    events = Events(source.aws, source.name, DETAIL_TYPE)
    commit = source.commit()
    source.push("main:feature/cats")
    branch = pushed(events, source.name, 1)[0]
    source.git("tag", "v1")
    source.push("v1")
    tag = pushed(events, source.name, 2)[1]
    source.push("--delete", "feature/cats")
    deleted = pushed(events, source.name, 3)[2]

    assert branch["referenceName"] == "feature/cats"
    assert (tag["referenceType"], tag["referenceName"], tag["referenceFullName"]) == (
        "tag",
        "v1",
        "refs/tags/v1",
    )
    assert (deleted["event"], deleted["oldCommitId"]) == ("referenceDeleted", commit)
    assert "commitId" not in deleted


def test_a_branch_is_found_by_its_tip(source: Source) -> None:
    with pytest.raises(ClientError) as missing:
        source.codecommit.get_branch(repositoryName=source.name, branchName="main")
    commit = source.commit("the message")
    source.push()

    assert missing.value.response["Error"]["Code"] == "BranchDoesNotExistException"
    found = source.codecommit.get_branch(repositoryName=source.name, branchName="main")
    assert found["branch"] == {"branchName": "main", "commitId": commit}
    assert (
        source.codecommit.get_commit(repositoryName=source.name, commitId=commit)["commit"]["message"]
        == "the message"
    )


def test_repositories_are_created_once_and_deleted(source: Source) -> None:
    with pytest.raises(ClientError) as twice:
        source.create()
    found = source.codecommit.get_repository(repositoryName=source.name)["repositoryMetadata"]
    source.codecommit.delete_repository(repositoryName=source.name)
    with pytest.raises(ClientError) as gone:
        source.codecommit.get_repository(repositoryName=source.name)

    assert twice.value.response["Error"]["Code"] == "RepositoryNameExistsException"
    assert found["Arn"].endswith(f":{source.name}")
    assert gone.value.response["Error"]["Code"] == "RepositoryDoesNotExistException"
    assert not (source.aws.home / "codecommit" / f"{source.name}.git").exists()


def test_a_stack_makes_and_removes_a_repository(aws: RunningEmbeddedAws, unique: str) -> None:
    cloudformation = aws.client("cloudformation")
    template = {
        "Resources": {"R": {"Type": "AWS::CodeCommit::Repository", "Properties": {"RepositoryName": unique}}},
        "Outputs": {"Arn": {"Value": {"Fn::GetAtt": ["R", "Arn"]}}},
    }

    def stack() -> dict[str, Any]:
        found: dict[str, Any] = cloudformation.describe_stacks(StackName=unique)["Stacks"][0]
        return found

    cloudformation.create_stack(StackName=unique, TemplateBody=json.dumps(template))
    wait_for(lambda: stack()["StackStatus"] == "CREATE_COMPLETE")

    assert stack()["Outputs"][0]["OutputValue"].endswith(f":{unique}")
    assert (aws.home / "codecommit" / f"{unique}.git").is_dir()
    cloudformation.delete_stack(StackName=unique)
    wait_for(lambda: not (aws.home / "codecommit" / f"{unique}.git").exists())
