"""ECR, CodeBuild and CodeCommit.

The training image, the builds that make it and the source that they build.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from fine_tuning.aws.sdk import client
from fine_tuning.aws.translation import code_of, translated
from fine_tuning.errors import AwsRequestError, BuildQuotaError
from fine_tuning.image import Build

if TYPE_CHECKING:
    from types_boto3_codebuild.client import CodeBuildClient
    from types_boto3_codebuild.type_defs import BuildTypeDef
    from types_boto3_codecommit.client import CodeCommitClient
    from types_boto3_ecr.client import ECRClient

BRANCH = "main"
TAG = "latest"
_VERSION_VARIABLE = "KOHYA_SS_VERSION"  # of container/buildspec.yml
_NEWEST_BUILDS = 10
_NO_IMAGE = frozenset({"ImageNotFoundException"})
_NO_BRANCH = frozenset({"BranchDoesNotExistException"})
_TOO_MANY_BUILDS = "AccountLimitExceededException"
# "Cannot have more than 1 builds in queue for the account"; CodeBuild's guide promises a queue that such accounts lack.
_NO_BUILDS = "more than 0 builds"
_RAISE_THE_QUOTA = (
    "Raise the quota 'Concurrently running builds for Linux/Large environment' of AWS CodeBuild (Service Quotas), then "
    "run it again."
)


class Images:
    """The image of one deployment."""

    def __init__(
        self, image_repository: str, source_repository: str, build_project: str, kohya_version: str
    ) -> None:
        self._image_repository = image_repository
        self._source_repository = source_repository
        self._build_project = build_project
        self._kohya_version = kohya_version

    def newest(self) -> str | None:
        """`<registry>/<repository>@sha256:…` of the image tagged `latest`, if it holds the wanted kohya_ss.

        The other tag of that image says which one it holds: `<commit>-<kohya_ss version>`.
        """
        ecr: ECRClient = client("ecr")
        with translated(f"look for the image {self._image_repository}:{TAG}"):
            try:
                found = ecr.describe_images(
                    repositoryName=self._image_repository, imageIds=[{"imageTag": TAG}]
                )
                repository = ecr.describe_repositories(repositoryNames=[self._image_repository])[
                    "repositories"
                ][0]
            except ecr.exceptions.ClientError as cause:
                if code_of(cause) not in _NO_IMAGE:
                    raise
                return None
        wanted = (
            f"{repository['repositoryUri']}@{image['imageDigest']}"
            for image in found["imageDetails"]
            if any(tag.endswith(f"-{self._kohya_version}") for tag in image.get("imageTags", ()))
        )
        return next(wanted, None)

    def source_commit(self) -> str | None:
        """The tip of the source's main branch; None before the first push."""
        codecommit: CodeCommitClient = client("codecommit")
        with translated(f"look at the branch {BRANCH} of {self._source_repository}"):
            try:
                branch = codecommit.get_branch(repositoryName=self._source_repository, branchName=BRANCH)
            except codecommit.exceptions.ClientError as cause:
                if code_of(cause) not in _NO_BRANCH:
                    raise
                return None
        return branch["branch"].get("commitId")

    def builds(self) -> list[Build]:
        """The newest builds of the wanted kohya_ss, the newest first; one that says no version counts too."""
        codebuild: CodeBuildClient = client("codebuild")
        with translated(f"list the builds of {self._build_project}"):
            ids = codebuild.list_builds_for_project(projectName=self._build_project, sortOrder="DESCENDING")[
                "ids"
            ]
            if not ids:
                return []
            found = {b["id"]: b for b in codebuild.batch_get_builds(ids=ids[:_NEWEST_BUILDS])["builds"]}
        ordered = [found[one] for one in ids[:_NEWEST_BUILDS] if one in found]
        return [
            Build(b["id"], b["buildStatus"], b.get("resolvedSourceVersion") or b.get("sourceVersion"))
            for b in ordered
            if _version_of(b) in (self._kohya_version, None)
        ]

    def start_build(self, commit: str) -> str:
        """Starts the build of a commit with the wanted kohya_ss.

        Two runs that find no image at the same time start one build.

        Raises BuildQuotaError where other builds of the account are in the way, AwsRequestError where it may have none.
        """
        codebuild: CodeBuildClient = client("codebuild")
        token = hashlib.sha256(f"{self._build_project} {commit} {self._kohya_version}".encode()).hexdigest()
        with translated(f"start a build of {self._build_project}"):
            try:
                answer = codebuild.start_build(
                    projectName=self._build_project,
                    sourceVersion=commit,
                    environmentVariablesOverride=[{"name": _VERSION_VARIABLE, "value": self._kohya_version}],
                    idempotencyToken=token,
                )
            except codebuild.exceptions.ClientError as cause:
                if code_of(cause) != _TOO_MANY_BUILDS:
                    raise
                raise _refused(str(cause)) from cause
        return answer["build"]["id"]


def _refused(said: str) -> BuildQuotaError | AwsRequestError:
    kind = AwsRequestError if _NO_BUILDS in said else BuildQuotaError
    return kind(f"CodeBuild starts no build of the training image: {said}.", _RAISE_THE_QUOTA)


def _version_of(build: BuildTypeDef) -> str | None:
    """The kohya_ss that a build was started with."""
    variables = build.get("environment", {}).get("environmentVariables", [])
    return next((one["value"] for one in variables if one["name"] == _VERSION_VARIABLE), None)
