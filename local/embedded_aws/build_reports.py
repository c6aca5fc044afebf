"""The test reports of builds: what buildspec.yml's `reports` make of the files that a build left.

A report without a file fails the build. CodeBuild's guide only says that such a report stays INCOMPLETE; users have
seen the phase UPLOAD_ARTIFACTS fail, so that is what a buildspec must be ready for.
"""

import time
import uuid
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ministack.core.responses import AccountRegionScopedDict

from local.embedded_aws.buildspec import ReportFiles
from local.embedded_aws.iam import role_denial
from local.embedded_aws.registration import arn

Request = Mapping[str, Any]
ACTIONS = ("CreateReportGroup", "CreateReport", "UpdateReport", "BatchPutTestCases")
OUTCOMES = {"failure": "FAILED", "error": "ERROR", "skipped": "SKIPPED"}
SECONDS_KEPT = 30 * 86400

_reports = AccountRegionScopedDict()


class ReportError(Exception):
    """A report could not be made; the message is the phase's context."""


def upload(
    reports: Mapping[str, ReportFiles], folder: Path, build: Mapping[str, Any], role: str
) -> list[str]:
    """The ARNs of the reports of a build whose source lies in `folder`. Raises ReportError."""
    made = []
    for name, files in reports.items():
        group = f"{build['projectName']}-{name}"
        for action in ACTIONS:
            allowed_on = arn("codebuild", f"report-group/{group}")
            denial = role_denial(
                role, f"codebuild:{action}", allowed_on, assumed_by="codebuild.amazonaws.com"
            )
            if denial:
                raise ReportError(f"error creating the report group {group}: {denial}")
        report = {**described(cases_in(files, folder)), **identity(group, build)}
        _reports[report["arn"]] = report
        made.append(str(report["arn"]))
    return made


def identity(group: str, build: Mapping[str, Any]) -> dict[str, Any]:
    now = time.time()
    return {
        "arn": arn("codebuild", f"report/{group}:{uuid.uuid4()}"),
        "type": "TEST",
        "name": group,
        "reportGroupArn": arn("codebuild", f"report-group/{group}"),
        "executionId": build["arn"],
        "created": now,
        "expired": now + SECONDS_KEPT,
        "exportConfig": {"exportType": "NO_EXPORT"},
        "truncated": False,
    }


def cases_in(files: ReportFiles, folder: Path) -> list[ElementTree.Element]:
    """The test cases of all of a report's JUnit files."""
    base = folder / files.base_directory
    if not base.is_dir():
        raise ReportError(f"no matching base directory path found for {files.base_directory}")
    found = sorted({path for pattern in files.patterns for path in base.glob(pattern) if path.is_file()})
    if not found:
        raise ReportError(f"no matching report paths found for {', '.join(files.patterns)}")
    try:
        return [case for path in found for case in ElementTree.parse(path).iter("testcase")]
    except ElementTree.ParseError as error:
        raise ReportError(f"a report is not JUnit's XML: {error}") from error


def described(cases: Sequence[ElementTree.Element]) -> dict[str, Any]:
    counts = Counter(outcome(case) for case in cases)
    failed = counts["FAILED"] + counts["ERROR"]
    seconds = sum(float(case.get("time", 0)) for case in cases)
    return {
        "status": "FAILED" if failed else "SUCCEEDED",
        "testSummary": {
            "total": len(cases),
            "statusCounts": {
                name: counts[name] for name in ("SUCCEEDED", "FAILED", "ERROR", "SKIPPED", "UNKNOWN")
            },
            "durationInNanoSeconds": int(seconds * 1e9),
        },
    }


def outcome(case: ElementTree.Element) -> str:
    return next((OUTCOMES[part.tag] for part in case if part.tag in OUTCOMES), "SUCCEEDED")


def batch_get_reports(request: Request) -> dict[str, Any]:
    asked = request["reportArns"]
    return {
        "reports": [_reports[each] for each in asked if each in _reports],
        "reportsNotFound": [each for each in asked if each not in _reports],
    }
