"""Of the training image: missing for a run, built, not built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fine_tuning import console
from fine_tuning.messages.message import (
    Message,
    Paragraph,
    counted,
    duration,
    known,
    log,
    of_image,
    of_run,
    size,
)
from fine_tuning.run import Run

PUSH = "./dev push-image-source"
# As ECR orders them; what it does not grade comes last.
_SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL")
_SERIOUS = _SEVERITIES[:2]
_UNSCANNED: Mapping[str | None, str] = {
    None: "not begun",
    "PENDING": "not finished",
    "IN_PROGRESS": "not finished",
    "UNKNOWN": "not known, ECR did not tell",
    "UNSUPPORTED_IMAGE": "no findings, ECR cannot scan this image",
}


def image_missing(run: Run) -> Message:
    paragraphs = [
        [
            f"The dataset {run.dataset} was accepted, but there is no training image, and no source to build one.",
            "Nothing was started, nothing was paid for.",
        ],
        ["In a clone of this project, push the image's source; the push builds it:", PUSH],
        ["Then run it again:", f"./dev retry {run.run_id}"],
        [f"Run: {run.run_id}"],
        ["The report:", run.uri(run.report_key)],
    ]
    subject = f"Training image missing: {run.dataset} waits for its source"
    return of_run("image-missing", "FAILED", run, subject, paragraphs, needs_action=True)


def image_built(facts: Mapping[str, Any]) -> Message:
    """A new training image.

    `facts`: `{"commit", "kohya_version", "digest", "build_id" (its ARN), "seconds", "size_bytes"|None,
    "findings": {severity: count}|None, "scan_status": ECR's word|None, "tests": {name: outcome}|None}`.
    """
    findings, tests, size_bytes = facts.get("findings"), facts.get("tests"), facts.get("size_bytes")
    serious = sum((findings or {}).get(severity, 0) for severity in _SERIOUS)
    paragraphs: list[Paragraph] = [
        ["The training image was built. Runs use the newest commit's: of two pushes, the later one's."],
        [
            f"Kohya: {known(facts.get('kohya_version'))}",
            f"Commit: {known(facts.get('commit'))}",
            *([f"Size: {size(size_bytes)}"] if size_bytes is not None else []),
            f"Build: {duration(facts.get('seconds'))}",
            f"Scan: {_scan(findings, facts.get('scan_status'))}",
            *([f"Tests: {_tests(tests)}"] if tests is not None else []),
        ],
        ["Digest:", known(facts.get("digest"))],
        ["To train with it:", "./dev drop DIR"],
    ]
    subject = f"Training image built: Kohya {known(facts.get('kohya_version'))}"
    subject += f", {counted(serious, 'serious finding')}" if serious else ""
    return of_image(
        "image-built",
        "SUCCEEDED",
        str(facts["build_id"]),
        subject,
        paragraphs,
        console.of_build(str(facts["build_id"])),
        needs_action=serious > 0,
    )


def image_failed(facts: Mapping[str, Any]) -> Message:
    """A build that came to nothing; `facts`: `{"build_id" (its ARN), "commit", "phase", "reason", "log_lines"}`."""
    paragraphs: list[Paragraph] = [
        [
            "The training image was not built.",
            "Runs keep using the last image that was built, if there is one.",
        ],
        ["Cause:", f"{known(facts.get('reason'))}"],
        [f"Phase: {known(facts.get('phase'))}", f"Commit: {known(facts.get('commit'))}"],
        log(facts.get("log_lines") or ()),
        ["Mend the source in container/, unless the cause has passed by itself; this builds it again:", PUSH],
    ]
    return of_image(
        "image-failed",
        "FAILED",
        str(facts["build_id"]),
        f"Training image not built: it failed in {known(facts.get('phase'))}",
        paragraphs,
        console.of_build(str(facts["build_id"])),
        needs_action=True,
    )


def _scan(findings: Mapping[str, int] | None, status: str | None) -> str:
    """Known weaknesses by severity, the worst first, or why there are none to tell."""
    if findings is None:
        return _UNSCANNED.get(status, f"no findings, ECR says {status}")
    ordered = sorted(findings, key=lambda name: _SEVERITIES.index(name) if name in _SEVERITIES else 9)
    return (
        ", ".join(f"{findings[name]} {name.lower()}" for name in ordered if findings[name]) or "nothing found"
    )


def _tests(tests: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {outcome}" for name, outcome in tests.items()) or "none"
