"""The push that makes the training image: container/ becomes the content of CodeCommit's main branch.

Whether the push caused a build is asked of CodeBuild, and whether the build made an image is asked of ECR.
"""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from local.cli import processes, refusal
from local.cli.account import Account, seconds_between_looks
from local.cli.failure import CommandError
from local.cli.folders import temporary_folder
from local.cli.repository import ROOT

SOURCE = ROOT / "container"
BRANCH = "main"
NOT_SOURCE = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
SECONDS_TO_START_BUILDING = 60.0
SECONDS_TO_BUILD = 2 * 3600.0
SECONDS_BETWEEN_LOOKS = 10.0  # of an own account: CodeBuild's limit is the account's, and it is low
VERSION_VARIABLE = "KOHYA_SS_VERSION"  # of buildspec.yml
WITHOUT_RUN = "RUN steps were not executed: "


@dataclass(frozen=True)
class Image:
    """`uri` names it by digest; `remark` is what the build says of how it was made, if that needs saying."""

    uri: str
    commit: str
    build_id: str
    remark: str = ""


def run(account: Account, outputs: Mapping[str, str]) -> int:
    """Without anything to push there is still an image to be had: of another Kohya version, or after a failed build."""
    before = branch_tip(account, outputs)
    commit = push(account, outputs)
    if commit == before:
        print(f"{outputs['ImageSourceRepositoryName']} is at {commit[:12]} already, nothing to push")
        uri, build_id = image_or_build(account, outputs, commit, print)
    else:
        print(f"pushed {commit[:12]} to {outputs['ImageSourceRepositoryName']}")
        uri, build_id = None, None
    with refusal.told("What is pushed stays pushed: ./dev push-image-source shows what became of its image."):
        print(uri or wait_for_image(account, outputs, commit, print, build_id).uri)
    return 0


def branch_tip(account: Account, outputs: Mapping[str, str]) -> str | None:
    """The newest commit of the branch; None before the first push."""
    codecommit = account.client("codecommit")
    name = outputs["ImageSourceRepositoryName"]
    try:
        return str(codecommit.get_branch(repositoryName=name, branchName=BRANCH)["branch"]["commitId"])
    except codecommit.exceptions.BranchDoesNotExistException:
        return None


def image_or_build(
    account: Account, outputs: Mapping[str, str], commit: str, say: Callable[[str], None]
) -> tuple[str | None, str | None]:
    """The image of a commit that was pushed before, or the id of its build, which is started if none runs."""
    codebuild, project = account.client("codebuild"), outputs["ImageBuildProjectName"]
    version = version_of(codebuild.batch_get_projects(names=[project])["projects"][0])
    uri = image_tagged(account, outputs, f"{commit}-{version}")
    if uri:
        return uri, None
    build = newest_build(codebuild, project, commit)
    if build is None or build["buildStatus"] != "IN_PROGRESS" or version_of(build) != version:
        say(f"it has no image with Kohya {version}: a build is started")
        build = codebuild.start_build(projectName=project, sourceVersion=commit)["build"]
    return None, str(build["id"])


def version_of(project_or_build: Mapping[str, Any]) -> str:
    variables = project_or_build["environment"]["environmentVariables"]
    return next(str(each["value"]) for each in variables if each["name"] == VERSION_VARIABLE)


def clone_url(account: Account, outputs: Mapping[str, str]) -> str:
    """git-remote-codecommit signs with the account's own credentials; the embedded repository is a folder."""
    name = outputs["ImageSourceRepositoryName"]
    if account.embedded:
        return str(account.embedded.repository(name))
    return f"codecommit::{account.client('codecommit').meta.region_name}://{name}"


def push(account: Account, outputs: Mapping[str, str], source: Path = SOURCE) -> str:
    """Make `source` the content of the branch and return its commit; pushes nothing if it is that already."""
    with temporary_folder("image-source-") as folder:
        git = Git(folder / "clone", account.environment)
        git("clone", "--quiet", clone_url(account, outputs), str(folder / "clone"), at=folder)
        git("checkout", "--quiet", "-B", BRANCH)
        for path in (folder / "clone").iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(source, folder / "clone", ignore=NOT_SOURCE, dirs_exist_ok=True)
        git("add", "--all", "--force")
        if git("status", "--porcelain"):
            git(*identity(git), "commit", "--quiet", "-m", "Source of the training image")
        git("push", "--quiet", "origin", f"HEAD:refs/heads/{BRANCH}")
        return git("rev-parse", "HEAD").strip()


@dataclass(frozen=True)
class Git:
    folder: Path
    environment: Mapping[str, str]

    def __call__(self, *arguments: str, at: Path | None = None) -> str:
        # The hooks of a person's own repository, from which ./dev may be called, have no business here.
        environment = dict(self.environment or os.environ)
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
            environment.pop(name, None)
        environment["GIT_TERMINAL_PROMPT"] = "0"
        return processes.run(
            ["git", *arguments], what=f"git {arguments[0]}", folder=at or self.folder, environment=environment
        )


def identity(git: Git) -> list[str]:
    """git refuses to commit for a person whose name it does not know."""
    try:
        git("config", "user.email")
        return []
    except CommandError:
        return ["-c", "user.name=image source", "-c", "user.email=image-source@localhost"]


def wait_for_image(
    account: Account,
    outputs: Mapping[str, str],
    commit: str,
    say: Callable[[str], None],
    build_id: str | None = None,
) -> Image:
    """Wait for the build that the push caused, or for the given one, and for its image.

    Raises CommandError when no build of that commit begins, the build fails, or it left no image.
    """
    poll = seconds_between_looks(account, SECONDS_BETWEEN_LOOKS)
    build = follow_build(
        account.client("codebuild"), outputs["ImageBuildProjectName"], commit, say, poll, build_id
    )
    if build["buildStatus"] != "SUCCEEDED":
        ended = f"build {build['id']} ended {build['buildStatus']}: {causes_of(build)}"
        raise CommandError(f"{ended}\n\n{log_of(account, build)[-3000:]}")
    tag = exported(build).get("IMAGE_TAG", commit)
    uri = image_tagged(account, outputs, tag)
    if uri is None:
        raise CommandError(f"the build succeeded, but ECR holds no image tagged {tag}")
    remarks = [line for line in log_of(account, build).splitlines() if line.startswith(WITHOUT_RUN)]
    return Image(uri, commit, build["id"], remarks[0].strip() if remarks else "")


def image_tagged(account: Account, outputs: Mapping[str, str], tag: str) -> str | None:
    """The image's address by digest."""
    ecr, name = account.client("ecr"), outputs["ImageRepositoryName"]
    try:
        [image] = ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])["imageDetails"]
    except ecr.exceptions.ImageNotFoundException:
        return None
    [repository] = ecr.describe_repositories(repositoryNames=[name])["repositories"]
    return f"{repository['repositoryUri']}@{image['imageDigest']}"


def follow_build(
    codebuild: Any,
    project: str,
    commit: str,
    say: Callable[[str], None],
    poll: float,
    build_id: str | None = None,
) -> dict[str, Any]:
    """The build's end: of the commit's newest build, or of the given one. Where AWS is busy it is looked at later."""
    begun = time.monotonic()
    phase = ""
    while True:
        waited = time.monotonic() - begun
        if waited > SECONDS_TO_BUILD:
            raise CommandError(f"the build of {commit} did not end within {SECONDS_TO_BUILD / 3600:g} hours")
        try:
            build = look_at_build(codebuild, project, commit, build_id)
        except ClientError as error:
            if not refusal.is_busy(error):
                raise
            time.sleep(poll)
            continue
        build_id = build["id"] if build else None
        if build and build.get("currentPhase", "") != phase:
            phase = build.get("currentPhase", "")
            say(f"build {build['id'].split(':')[-1][:8]}: {phase.lower()}")
        if build and build["buildStatus"] != "IN_PROGRESS":
            return build
        if build is None and waited > SECONDS_TO_START_BUILDING:
            raise CommandError(why_nothing_builds(codebuild, project, commit))
        time.sleep(poll)


def look_at_build(codebuild: Any, project: str, commit: str, build_id: str | None) -> dict[str, Any] | None:
    """The build of that id, in one request; the newest of the commit where it is not known yet."""
    if build_id is None:
        return newest_build(codebuild, project, commit)
    build: dict[str, Any] = codebuild.batch_get_builds(ids=[build_id])["builds"][0]
    return build


def why_nothing_builds(codebuild: Any, project: str, commit: str) -> str:
    """CodeBuild refuses what is above the account's quota, and EventBridge does not ask it a second time."""
    said = f"the push of {commit} started no build of {project}"
    builds = newest_builds(codebuild, project)
    under_way = [build["id"] for build in builds if build["buildStatus"] == "IN_PROGRESS"]
    if under_way:
        return (
            f"{said} while {under_way[0]} is under way: the quota `{refusal.BUILD_QUOTA}` may allow no second one. The "
            "commit is built by itself once that one has ended, and an e-mail tells of it."
        )
    return (
        f"{said}. ./dev replay --dry-run image-source shows AWS's refusal, if there was one: the quota "
        f"`{refusal.BUILD_QUOTA}` is 0 or in use, or the rule lacks a permission. Once that is mended, "
        "./dev push-image-source starts the build."
    )


def newest_build(codebuild: Any, project: str, commit: str) -> dict[str, Any] | None:
    builds = newest_builds(codebuild, project)
    of_commit = [b for b in builds if commit in (b.get("sourceVersion"), b.get("resolvedSourceVersion"))]
    return max(of_commit, key=lambda build: str(build.get("startTime", "")), default=None)


def newest_builds(codebuild: Any, project: str) -> list[dict[str, Any]]:
    ids = codebuild.list_builds_for_project(projectName=project, sortOrder="DESCENDING")["ids"][:20]
    builds: list[dict[str, Any]] = codebuild.batch_get_builds(ids=ids)["builds"] if ids else []
    return builds


def exported(build: Mapping[str, Any]) -> dict[str, str]:
    """The variables that buildspec.yml exports; the image's tag is among them."""
    return {each["name"]: each["value"] for each in build.get("exportedEnvironmentVariables") or []}


def causes_of(build: Mapping[str, Any]) -> str:
    """What the phases that failed say of themselves."""
    contexts = (context for phase in build.get("phases", []) for context in phase.get("contexts") or [])
    return "; ".join(str(context["message"]) for context in contexts if context.get("message"))


def log_of(account: Account, build: Mapping[str, Any]) -> str:
    """The end of the build's log out of CloudWatch Logs, all of a short one; empty while it has none."""
    place = build.get("logs", {})
    if not place.get("groupName") or not place.get("streamName"):
        return ""
    try:
        events = account.client("logs").get_log_events(
            logGroupName=place["groupName"], logStreamName=place["streamName"], startFromHead=False
        )["events"]
    except ClientError:
        return ""
    return "\n".join(str(event["message"]).rstrip("\n") for event in events)
