"""CodeCommit: bare git repositories below the home folder, and the event of each push.

A push is noticed by git itself: a post-receive hook, which needs nothing but sh, leaves what git told it in a folder
of the repository, and a thread turns that into events.
"""

import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ministack.core.responses import (
    AccountRegionScopedDict,
    get_account_id,
    get_region,
)

from local.embedded_aws.checked_operation import checked
from local.embedded_aws.cloudformation import register_resource_type
from local.embedded_aws.registration import (
    arn,
    emit_event,
    in_background,
    log,
    register_json_service,
    register_resource_arn,
)
from local.embedded_aws.request_validation import RequestError
from local.embedded_aws.settings import settings

Request = Mapping[str, Any]
DETAIL_TYPE = "CodeCommit Repository State Change"
PUSHES = "embedded-aws-pushes"
WATCH_SECONDS = 0.2
NO_COMMIT = "0" * 40
HOOK = f"""#!/bin/sh
# Leave "old new reference" of each pushed reference for the embedded AWS; the rename makes the note whole at
# once.
cd "$(git rev-parse --absolute-git-dir)/{PUSHES}" || exit 0
cat > ".$$" && mv ".$$" "$$-$(date +%s)"
"""

_repositories = AccountRegionScopedDict()


def install() -> None:
    register_json_service(
        "codecommit",
        "CodeCommit_20150413",
        {name: checked("codecommit", name, do) for name, do in OPERATIONS.items()},
    )
    register_resource_arn(
        "codecommit", lambda operation, request: repository_arn(request.get("repositoryName"))
    )
    register_resource_type("AWS::CodeCommit::Repository", provision, update_provisioned, delete_provisioned)


def repository_arn(name: str | None) -> str:
    return arn("codecommit", name) if name else "*"


def repository_path(name: str) -> Path:
    return settings().repositories / f"{name}.git"


def git(name: str, *arguments: str) -> str | None:
    """What git prints in the repository, or None when it fails."""
    done = subprocess.run(
        ["git", "-C", str(repository_path(name)), *arguments], capture_output=True, text=True
    )
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def create_repository(request: Request) -> dict[str, Any]:
    name, now = request["repositoryName"], time.time()
    if name in _repositories:
        raise RequestError("RepositoryNameExistsException", f"Repository named {name} already exists")
    path = repository_path(name)
    shutil.rmtree(path, ignore_errors=True)
    subprocess.run(["git", "init", "--quiet", "--bare", str(path)], check=True)
    subprocess.run(["git", "-C", str(path), "symbolic-ref", "HEAD", "refs/heads/main"], check=True)
    (path / PUSHES).mkdir()
    hook = path / "hooks/post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(HOOK)
    hook.chmod(0o755)
    metadata = {
        "accountId": get_account_id(),
        "repositoryId": str(uuid.uuid4()),
        "repositoryName": name,
        "repositoryDescription": request.get("repositoryDescription", ""),
        "defaultBranch": "main",
        "lastModifiedDate": now,
        "creationDate": now,
        "cloneUrlHttp": f"https://git-codecommit.{get_region()}.amazonaws.com/v1/repos/{name}",
        "cloneUrlSsh": f"ssh://git-codecommit.{get_region()}.amazonaws.com/v1/repos/{name}",
        "Arn": repository_arn(name),
    }
    _repositories[name] = metadata
    in_background(watch, metadata)
    return {"repositoryMetadata": metadata}


def get_repository(request: Request) -> dict[str, Any]:
    return {"repositoryMetadata": _repository(request["repositoryName"])}


def delete_repository(request: Request) -> dict[str, Any]:
    """A repository that is gone already is deleted without an answer, as in AWS."""
    metadata = _repositories.pop(request["repositoryName"], None)
    if metadata is None:
        return {}
    shutil.rmtree(repository_path(metadata["repositoryName"]), ignore_errors=True)
    return {"repositoryId": metadata["repositoryId"]}


def list_repositories(request: Request) -> dict[str, Any]:
    return {
        "repositories": [
            {"repositoryName": item["repositoryName"], "repositoryId": item["repositoryId"]}
            for item in _repositories.values()
        ]
    }


def list_branches(request: Request) -> dict[str, Any]:
    name = _repository(request["repositoryName"])["repositoryName"]
    return {
        "branches": (git(name, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads") or "").split()
    }


def get_branch(request: Request) -> dict[str, Any]:
    if "repositoryName" not in request:
        raise RequestError("RepositoryNameRequiredException", "A repository name is required.")
    name, branch = _repository(request["repositoryName"])["repositoryName"], request.get("branchName")
    if not branch:
        raise RequestError("BranchNameRequiredException", "A branch name is required.")
    commit = git(name, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}")
    if commit is None:
        raise RequestError("BranchDoesNotExistException", f"Branch {branch} does not exist")
    return {"branch": {"branchName": branch, "commitId": commit}}


def get_commit(request: Request) -> dict[str, Any]:
    name, commit = _repository(request["repositoryName"])["repositoryName"], request["commitId"]
    line = "%T%n%P%n%an%n%ae%n%at%n%B"
    shown = git(name, "show", "--no-patch", f"--format={line}", f"{commit}^{{commit}}")
    if shown is None:
        raise RequestError("CommitIdDoesNotExistException", f"Commit {commit} does not exist")
    tree, parents, author, email, at, message = shown.split("\n", 5)
    person = {"name": author, "email": email, "date": f"{at} +0000"}
    described = {"commitId": commit, "treeId": tree, "parents": parents.split(), "message": message}
    return {"commit": {**described, "author": person, "committer": person, "additionalData": ""}}


def _repository(name: str) -> dict[str, Any]:
    if name not in _repositories:
        raise RequestError("RepositoryDoesNotExistException", f"{name} does not exist")
    metadata: dict[str, Any] = _repositories[name]
    return metadata


OPERATIONS: dict[str, Callable[[Request], dict[str, Any]]] = {
    "CreateRepository": create_repository,
    "GetRepository": get_repository,
    "DeleteRepository": delete_repository,
    "ListRepositories": list_repositories,
    "ListBranches": list_branches,
    "GetBranch": get_branch,
    "GetCommit": get_commit,
}


# Pushes


def watch(metadata: Mapping[str, Any]) -> None:
    """Emit an event for each reference that is pushed, for as long as the repository exists."""
    folder = repository_path(metadata["repositoryName"]) / PUSHES
    while _repositories.get(metadata["repositoryName"]) is metadata:
        try:
            for note in sorted(pushes(folder), key=lambda path: path.stat().st_mtime_ns):
                lines = note.read_text().splitlines()
                note.unlink()
                for line in lines:
                    emit_event(
                        "aws.codecommit",
                        DETAIL_TYPE,
                        push_detail(metadata, *line.split(" ", 2)),
                        [metadata["Arn"]],
                    )
        except FileNotFoundError:  # deleted meanwhile
            pass
        except Exception:  # the thread that hears of pushes must outlive one that it cannot tell
            log.exception("a push to %s", metadata["repositoryName"])
        time.sleep(WATCH_SECONDS)


def pushes(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def push_detail(metadata: Mapping[str, Any], old: str, new: str, reference: str) -> dict[str, str]:
    """The event's detail for one reference that git moved from commit `old` to `new`; zeros stand for none."""
    kind = "tag" if reference.startswith("refs/tags/") else "branch"
    event = (
        "referenceCreated"
        if old == NO_COMMIT
        else "referenceDeleted"
        if new == NO_COMMIT
        else "referenceUpdated"
    )
    commits = {"oldCommitId": old, "commitId": new}
    return {
        "event": event,
        "repositoryName": metadata["repositoryName"],
        "repositoryId": metadata["repositoryId"],
        "callerUserArn": f"arn:aws:iam::{metadata['accountId']}:root",
        "referenceType": kind,
        "referenceName": reference.split("/", 2)[2],
        "referenceFullName": reference,
        **{name: commit for name, commit in commits.items() if commit != NO_COMMIT},
    }


# CloudFormation


def provision(logical_id: str, properties: Mapping[str, Any], stack: str) -> tuple[str, dict[str, Any]]:
    """AWS::CodeCommit::Repository. Seeding it with `Code` is not emulated."""
    if "Code" in properties:
        raise RequestError("ValidationException", "AWS::CodeCommit::Repository: Code is not emulated")
    request = {"repositoryName": properties["RepositoryName"]}
    if "RepositoryDescription" in properties:
        request["repositoryDescription"] = properties["RepositoryDescription"]
    return _provisioned(create_repository(request)["repositoryMetadata"])


def update_provisioned(
    identifier: str, old: Mapping[str, Any], new: Mapping[str, Any], stack: str
) -> tuple[str, dict[str, Any]]:
    """A new name renames the repository: it is no replacement."""
    if new["RepositoryName"] != old["RepositoryName"]:
        raise RequestError("ValidationException", "Renaming a CodeCommit repository is not emulated")
    metadata = _repository(new["RepositoryName"])
    metadata["repositoryDescription"] = new.get("RepositoryDescription", "")
    return _provisioned(metadata)


def delete_provisioned(identifier: str, properties: Mapping[str, Any]) -> None:
    delete_repository({"repositoryName": properties["RepositoryName"]})


def _provisioned(metadata: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    attributes = {
        "Arn": metadata["Arn"],
        "Name": metadata["repositoryName"],
        "CloneUrlHttp": metadata["cloneUrlHttp"],
        "CloneUrlSsh": metadata["cloneUrlSsh"],
    }
    return metadata["repositoryId"], attributes
