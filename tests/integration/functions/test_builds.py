"""Every build of the training image that ends is mailed, with what one would otherwise look up."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import report_build
from botocore.stub import Stubber

from fine_tuning.aws import builds, sdk
from fine_tuning.aws.images import Images
from fine_tuning.errors import BuildQuotaError
from fine_tuning.image import Build
from tests.functions_data import REPOSITORY
from tests.integration.functions.conftest import Stack

DIGEST = "sha256:" + "a" * 64
REPORT = "arn:aws:codebuild:us-east-1:111122223333:report/p-image-tests:1"


def event(status: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REPOSITORY / "events/codebuild-build-failed.event.json").read_text())
    found["detail"]["build-status"] = status
    return found


def stub(service: str, operation: str, *answers: dict[str, Any]) -> Stubber:
    stubbed = Stubber(sdk.client(service))  # type: ignore[call-overload]
    for answer in answers:
        stubbed.add_response(operation, answer)
    stubbed.activate()
    return stubbed


def stub_codebuild(status: str) -> None:
    build = {
        "arn": event(status)["detail"]["build-id"],
        "resolvedSourceVersion": "c0ffee",
        "startTime": datetime(2026, 11, 23, 9, 0, tzinfo=UTC),
        "endTime": datetime(2026, 11, 23, 9, 12, tzinfo=UTC),
        "environment": {
            "type": "LINUX_CONTAINER",
            "image": "i",
            "computeType": "BUILD_GENERAL1_LARGE",
            "environmentVariables": [{"name": "KOHYA_SS_VERSION", "value": "v25.2.2"}],
        },
        "exportedEnvironmentVariables": [{"name": "IMAGE_DIGEST", "value": DIGEST}],
        "reportArns": [REPORT],
    }
    report = {
        "name": "image-tests",
        "testSummary": {"total": 17, "statusCounts": {"SUCCEEDED": 17, "FAILED": 0}},
    }
    report["testSummary"]["durationInNanoSeconds"] = 1  # type: ignore[index]
    stubbed = stub("codebuild", "batch_get_builds", {"builds": [build]})
    stubbed.add_response("batch_get_reports", {"reports": [report]})


def scan(status: str, counts: dict[str, int] | None = None) -> dict[str, Any]:
    """As DescribeImageScanFindings answers; the stub holds it against the service's model."""
    found: dict[str, Any] = {
        "registryId": "111122223333",
        "repositoryName": "kohya-ss-fine-tuning",
        "imageId": {"imageDigest": DIGEST},
        "imageScanStatus": {"status": status, "description": "The scan was completed successfully."},
    }
    if counts is not None:
        found["imageScanFindings"] = {"findingSeverityCounts": counts, "findings": []}
    return found


def stub_ecr(*scans: dict[str, Any] | str | None) -> None:
    """Scans, or error codes, in the order in which they are asked for, None where there is none yet; then the image."""
    stubbed = stub("ecr", "describe_image_scan_findings")
    for found in scans:
        if found is None or isinstance(found, str):
            stubbed.add_client_error("describe_image_scan_findings", found or "ScanNotFoundException")
        else:
            stubbed.add_response("describe_image_scan_findings", found)
    stubbed.add_response("describe_images", {"imageDetails": [{"imageSizeInBytes": 3_400_000_000}]})


class Source:
    """The branch, the project's builds, and what is started."""

    def __init__(self, tip: str | None, *builds: Build) -> None:
        self.tip, self.builds = tip, list(builds)

    def start(self, commit: str) -> str:
        self.builds.append(Build(f"p:{len(self.builds) + 1}", "IN_PROGRESS", commit))
        return self.builds[-1].build_id

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Images, "source_commit", lambda images: self.tip)
        monkeypatch.setattr(Images, "builds", lambda images: self.builds)
        monkeypatch.setattr(Images, "start_build", lambda images, commit: self.start(commit))


@pytest.fixture(autouse=True)
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    """Nothing was pushed since the build that has ended."""
    source = Source("c0ffee", Build("p:1", "SUCCEEDED", "c0ffee"))
    source.install(monkeypatch)
    return source


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(builds.Builds.__init__, "__defaults__", (seconds.append,))
    return seconds


def test_given_a_build_that_succeeded_then_its_digest_tests_and_findings_are_mailed(
    stack: Stack, waited: list[float]
) -> None:
    stub_codebuild("SUCCEEDED")
    stub_ecr(None, scan("IN_PROGRESS"), scan("COMPLETE", {"HIGH": 2, "LOW": 5}))

    answer = report_build.handler(event("SUCCEEDED"), stack.context)

    assert answer["status"] == "SUCCEEDED"
    (mail,) = stack.mails()
    for said in (
        DIGEST,
        "c0ffee",
        "v25.2.2",
        "2 high, 5 low",
        "image-tests 17 succeeded",
        "3.4 GB",
        "12 min",
    ):
        assert said in mail["Message"], said
    assert waited == [5, 5]


def test_given_a_scan_that_never_ends_then_the_mail_comes_without_findings(
    stack: Stack, waited: list[float]
) -> None:
    stub_codebuild("SUCCEEDED")
    stub_ecr(*[scan("IN_PROGRESS")] * 48)

    report_build.handler(event("SUCCEEDED"), stack.context)

    (mail,) = stack.mails()
    assert "Scan: not finished" in mail["Message"]
    assert sum(waited) == 240


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([scan("ACTIVE", {"CRITICAL": 1})], "Scan: 1 critical"),  # Amazon Inspector's
        ([scan("COMPLETE", {})], "Scan: nothing found"),
        ([scan("UNSUPPORTED_IMAGE")], "Scan: no findings, ECR cannot scan this image"),
        ([scan("FAILED")], "Scan: no findings, ECR says FAILED"),
        ([None] * 48, "Scan: not begun"),
        (["AccessDeniedException"], "Scan: not known, ECR did not tell"),
        ([None, "ServerException"], "Scan: not known, ECR did not tell"),
    ],
)
def test_given_any_other_scan_then_the_mail_says_what_ecr_says(
    stack: Stack, waited: list[float], answers: list[dict[str, Any] | str | None], said: str
) -> None:
    stub_codebuild("SUCCEEDED")
    stub_ecr(*answers)

    report_build.handler(event("SUCCEEDED"), stack.context)

    (mail,) = stack.mails()
    assert f"\n{said}\n" in mail["Message"]


def test_given_a_build_that_failed_then_its_phase_and_last_lines_are_mailed_once(stack: Stack) -> None:
    failed = event("FAILED")
    place = failed["detail"]["additional-information"]["logs"]
    logs = sdk.client("logs")
    logs.create_log_group(logGroupName=place["group-name"])
    logs.create_log_stream(logGroupName=place["group-name"], logStreamName=place["stream-name"])
    logs.put_log_events(
        logGroupName=place["group-name"],
        logStreamName=place["stream-name"],
        logEvents=[{"timestamp": int(datetime.now(UTC).timestamp() * 1000), "message": "self-check: FAILED"}],
    )

    report_build.handler(failed, stack.context)
    report_build.handler(failed, stack.context)

    (mail,) = stack.mails()
    assert "Phase: BUILD" in mail["Message"]
    assert "COMMAND_EXECUTION_ERROR" in mail["Message"]
    assert "self-check: FAILED" in mail["Message"]
    assert "./dev push-image-source" in mail["Message"]


def test_given_a_build_that_never_had_a_log_then_it_is_mailed_all_the_same(stack: Stack) -> None:
    stopped = event("STOPPED")
    stopped["detail"]["additional-information"]["phases"] = []

    report_build.handler(stopped, stack.context)

    (mail,) = stack.mails()
    assert "The build ended STOPPED." in mail["Message"]


def test_given_a_push_that_was_refused_its_build_then_the_end_of_the_one_before_starts_it_once(
    stack: Stack, source: Source
) -> None:
    source.tip = "decade"
    answers = [report_build.handler(event("FAILED"), stack.context) for _ in range(2)]
    assert [answer["started_build_id"] for answer in answers] == ["p:2", None]
    assert [build.commit for build in source.builds] == ["c0ffee", "decade"]
    (mail,) = stack.mails()
    assert mail["Subject"].startswith("Training image not built")


@pytest.mark.parametrize("commit", ["decade", None])
@pytest.mark.parametrize("status", ["IN_PROGRESS", "SUCCEEDED", "FAILED", "STOPPED"])
def test_given_a_build_of_the_tip_then_however_it_ended_none_is_started(
    stack: Stack, source: Source, status: Any, commit: str | None
) -> None:
    source.tip, source.builds = "decade", [*source.builds, Build("p:2", status, commit)]
    assert report_build.handler(event("FAILED"), stack.context)["started_build_id"] is None
    assert len(source.builds) == 2


def test_given_no_branch_any_more_then_nothing_is_started(stack: Stack, source: Source) -> None:
    source.tip = None
    assert report_build.handler(event("FAILED"), stack.context)["started_build_id"] is None


def test_given_yet_other_builds_in_the_way_then_it_was_mailed_and_is_repeated(
    stack: Stack, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(images: Images, commit: str) -> str:
        raise BuildQuotaError("Cannot have more than 1 builds in queue.", "Wait.")

    source.tip = "decade"
    monkeypatch.setattr(Images, "start_build", refuse)
    with pytest.raises(BuildQuotaError):
        report_build.handler(event("FAILED"), stack.context)
    assert len(stack.mails()) == 1
