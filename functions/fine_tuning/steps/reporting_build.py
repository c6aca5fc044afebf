"""What is told of a build that has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fine_tuning.aws.builds import Builds
from fine_tuning.aws.images import Images
from fine_tuning.aws.mail import Mail
from fine_tuning.messages import image_built, image_failed

_SUCCEEDED = "SUCCEEDED"
# Every other phase that did not succeed comes after the one that failed.
_WENT_WELL = (_SUCCEEDED, "")


def report_build(detail: Mapping[str, Any], builds: Builds, mail: Mail) -> dict[str, Any]:
    """`detail`: of CodeBuild's event "Build State Change" of a build that is over."""
    if detail["build-status"] == _SUCCEEDED:
        message = image_built(built(detail, builds))
    else:
        message = image_failed(failed(detail, builds))
    mail.send_once(message)
    return {"status": detail["build-status"], "build_id": detail["build-id"]}


def build_the_tip(images: Images) -> str | None:
    """Starts the build of the branch's tip where its push started none, as while another build used the quota.

    Once: a tip that has had a build, however that ended, is not built again by itself. One that says no commit counts
    as the tip's.

    Returns the build's id, None where there is nothing to start. Raises BuildQuotaError where others are in the way.
    """
    tip = images.source_commit()
    if tip is None or any(build.commit in (tip, None) for build in images.builds()):
        return None
    return images.start_build(tip)


def built(detail: Mapping[str, Any], builds: Builds) -> dict[str, Any]:
    """The facts of image_built."""
    build = builds.describe(detail["build-id"])
    digest = build.exported.get("IMAGE_DIGEST")
    scan = builds.scan(digest) if digest else None
    return {
        "build_id": detail["build-id"],
        "commit": build.commit,
        "kohya_version": build.variables.get("KOHYA_SS_VERSION"),
        "digest": digest,
        "seconds": build.seconds,
        "size_bytes": builds.size_bytes(digest) if digest else None,
        "findings": scan.findings if scan else None,
        "scan_status": scan.status if scan else None,
        "tests": builds.tests(build.reports),
    }


def failed(detail: Mapping[str, Any], builds: Builds) -> dict[str, Any]:
    """The facts of image_failed: the first phase that went wrong, what it said, and the end of the log."""
    about = detail["additional-information"]
    wrong = [phase for phase in about.get("phases") or [] if phase.get("phase-status", "") not in _WENT_WELL]
    first = wrong[0] if wrong else {}
    said = [text for text in first.get("phase-context") or [] if text.strip(": ")]
    logs = about.get("logs") or {}
    return {
        "build_id": detail["build-id"],
        "commit": about.get("source-version"),
        "phase": first.get("phase-type"),
        "reason": "; ".join(said) or f"The build ended {detail['build-status']}.",
        "log_lines": builds.last_lines(logs.get("group-name"), logs.get("stream-name")),
    }
