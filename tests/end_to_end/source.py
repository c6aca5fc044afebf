"""The image's source repository, as somebody with a clone of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.end_to_end.journey import Stack


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def clone(stack: Stack, folder: Path) -> Path:
    url = stack.home / "codecommit" / f"{stack.outputs['ImageSourceRepositoryName']}.git"
    git(folder, "clone", str(url), "clone")
    return folder / "clone"


def push_change(folder: Path, branch: str, name: str, text: str) -> None:
    """Commits one changed file and pushes it to a branch, which may be new."""
    (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "-m", f"change {name}")
    git(folder, "push", "origin", f"HEAD:refs/heads/{branch}")


def commit(folder: Path, revision: str) -> str:
    words = ["git", "rev-parse", revision]
    return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def builds(stack: Stack) -> list[str]:
    project = stack.outputs["ImageBuildProjectName"]
    ids: list[str] = stack.client("codebuild").list_builds_for_project(projectName=project)["ids"]
    return ids
