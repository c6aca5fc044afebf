"""A build of the training image after its end: what CodeBuild, its log and ECR say of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fine_tuning.aws.sdk import client
from fine_tuning.aws.translation import code_of, translated
from fine_tuning.errors import FineTuningError
from fine_tuning.observability import logger

if TYPE_CHECKING:
    from types_boto3_codebuild.client import CodeBuildClient
    from types_boto3_ecr.client import ECRClient

# A scan on push takes minutes for an image of gigabytes; a mail without its findings is worth more than none.
_SCAN_SECONDS = 240
_POLL_SECONDS = 5
_UNDER_WAY = frozenset({None, "IN_PROGRESS", "PENDING"})
_SCANNED = frozenset({"COMPLETE", "ACTIVE"})  # ACTIVE: Amazon Inspector's, which goes on looking
_NO_SCAN = frozenset({"ScanNotFoundException"})
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
class Scan:
    """`status` as ECR says it, None before there is a scan, UNKNOWN where it could not be asked; `findings`:
    severity → count of one that ended well.
    """

    status: str | None
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

    def size_bytes(self, digest: str) -> int | None:
        """Compressed, as ECR keeps it."""
        ecr: ECRClient = client("ecr")
        with translated(f"look at the image {digest}"):
            (image,) = ecr.describe_images(
                repositoryName=self._image_repository, imageIds=[{"imageDigest": digest}]
            )["imageDetails"]
        return image.get("imageSizeInBytes")

    def scan(self, digest: str) -> Scan:
        """The scan on push, waited for a while; what prevents a look at it is logged, not raised.

        Not of DescribeImages: the members there that look like it stay empty with today's basic scanning (its
        API reference says so).
        """
        for _ in range(_SCAN_SECONDS // _POLL_SECONDS):
            try:
                scan = self._scan(digest)
            except FineTuningError as problem:
                logger.warning("The scan of the image cannot be looked at", problem=str(problem))
                return Scan("UNKNOWN", None)
            if scan.status not in _UNDER_WAY:
                break
            self._sleep(_POLL_SECONDS)
        return scan

    def _scan(self, digest: str) -> Scan:
        ecr: ECRClient = client("ecr")
        with translated(f"look at the scan of the image {digest}"):
            try:
                found = ecr.describe_image_scan_findings(
                    repositoryName=self._image_repository, imageId={"imageDigest": digest}, maxResults=1
                )
            except ecr.exceptions.ClientError as cause:
                if code_of(cause) not in _NO_SCAN:
                    raise
                return Scan(None, None)
        status = found.get("imageScanStatus", {}).get("status")
        if status not in _SCANNED:
            return Scan(status, None)
        counts = found.get("imageScanFindings", {}).get("findingSeverityCounts", {})
        return Scan(status, {str(severity): count for severity, count in counts.items()})

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
