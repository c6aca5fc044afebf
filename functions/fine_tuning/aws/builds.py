"""A build of the training image after its end: what CodeBuild, its log and ECR say of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fine_tuning.aws.sdk import client
from fine_tuning.aws.translation import code_of, translated

if TYPE_CHECKING:
    from types_boto3_codebuild.client import CodeBuildClient
    from types_boto3_ecr.client import ECRClient

# A scan on push takes minutes for an image of gigabytes; a mail without its findings is worth more than none.
_SCAN_SECONDS = 240
_POLL_SECONDS = 5
_UNDER_WAY = frozenset({"IN_PROGRESS", "PENDING", ""})
_LOG_LINES = 20


@dataclass(frozen=True)
class EndedBuild:
    """`variables` and `exported`: what it was started with, and what buildspec.yml exports."""

    commit: str | None
    seconds: float | None
    variables: Mapping[str, str]
    exported: Mapping[str, str]
    reports: Sequence[str]


@dataclass(frozen=True)
class BuiltImage:
    """`findings`: severity → count; None when there is no scan that ended."""

    size_bytes: int | None
    findings: Mapping[str, int] | None


class Builds:
    """The builds of one deployment."""

    def __init__(self, image_repository: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._image_repository = image_repository
        self._sleep = sleep

    def describe(self, arn: str) -> EndedBuild:
        codebuild: CodeBuildClient = client("codebuild")
        with translated(f"look at the build {arn}"):
            (build,) = codebuild.batch_get_builds(ids=[arn.rpartition(":build/")[2]])["builds"]
        began, ended = build.get("startTime"), build.get("endTime")
        return EndedBuild(
            commit=build.get("resolvedSourceVersion") or build.get("sourceVersion"),
            seconds=(ended - began).total_seconds() if began and ended else None,
            variables={
                each["name"]: each["value"] for each in build["environment"].get("environmentVariables", [])
            },
            exported={
                each.get("name", ""): each.get("value", "")
                for each in build.get("exportedEnvironmentVariables", [])
            },
            reports=build.get("reportArns", []),
        )

    def tests(self, reports: Sequence[str]) -> dict[str, str] | None:
        """Name of each report → how many of its tests came out how; None without any."""
        if not reports:
            return None
        codebuild: CodeBuildClient = client("codebuild")
        with translated("read the build's test reports"):
            found = codebuild.batch_get_reports(reportArns=list(reports))["reports"]
        return {
            report["name"]: ", ".join(
                f"{count} {outcome.lower()}"
                for outcome, count in report.get("testSummary", {}).get("statusCounts", {}).items()
                if count
            )
            for report in found
        }

    def image(self, digest: str) -> BuiltImage:
        """Waits a while for the scan on push to end."""
        ecr: ECRClient = client("ecr")
        for _ in range(_SCAN_SECONDS // _POLL_SECONDS):
            with translated(f"look at the image {digest}"):
                (image,) = ecr.describe_images(
                    repositoryName=self._image_repository, imageIds=[{"imageDigest": digest}]
                )["imageDetails"]
            if image.get("imageScanStatus", {}).get("status", "") not in _UNDER_WAY:
                break
            self._sleep(_POLL_SECONDS)
        summary = image.get("imageScanFindingsSummary")
        counts = (
            None
            if summary is None
            else {
                str(severity): count for severity, count in summary.get("findingSeverityCounts", {}).items()
            }
        )
        return BuiltImage(image.get("imageSizeInBytes"), counts)

    def last_lines(self, group: str | None, stream: str | None) -> list[str]:
        """The end of the build's log; empty where there is none."""
        if not group or not stream:
            return []
        logs: Any = client("logs")
        with translated(f"read the log {group} {stream}"):
            try:
                events = logs.get_log_events(
                    logGroupName=group, logStreamName=stream, limit=_LOG_LINES, startFromHead=False
                )["events"]
            except logs.exceptions.ClientError as cause:
                if code_of(cause) != "ResourceNotFoundException":
                    raise
                return []
        return [event["message"].rstrip() for event in events if event["message"].strip()]
