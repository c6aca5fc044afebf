"""What became of a drop before anything was trained: rejected, repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fine_tuning.findings import Finding, count_by_code, in_order
from fine_tuning.messages.message import Message, Paragraph, counted, drop_again, of_run
from fine_tuning.paths import shown
from fine_tuning.run import Run

_MOST_PROBLEMS = 20
_MOST_CODES = 8


def rejected(run: Run, report: Mapping[str, Any]) -> Message:
    """Counts by code, the first problems with file and remedy, and where the whole report lies."""
    findings = in_order(Finding.from_document(document) for document in report["findings"])
    errors = [finding for finding in findings if finding.severity == "error"]
    warnings = sum(finding.severity == "warning" for finding in findings)
    codes = [f"{count} x {code}" for code, count in list(count_by_code(errors).items())[:_MOST_CODES]]
    also = f" (it also holds {counted(warnings, 'warning')})" if warnings else ""
    paragraphs = [
        [
            f"The dataset {run.dataset} was not accepted.",
            "Nothing was trained, nothing was paid for, your files are untouched.",
        ],
        [f"{counted(len(errors), 'problem')}: {', '.join(codes)}"],
        listed(errors, _MOST_PROBLEMS),
        [f"The whole report{also}:", run.uri(run.report_key)],
        [
            "Correct the files. One that you remove must be removed in the bucket too, where it is judged again.",
            "Then drop the manifest again:",
            drop_again(run),
        ],
    ]
    subject = f"Rejected: {run.dataset} has {counted(len(errors), 'problem')}"
    return of_run("rejected", "REJECTED", run, subject, paragraphs, needs_action=True)


def repeated(run: Run, facts: Mapping[str, Any], model_uri: str | None) -> Message:
    """`model_uri` is None while the repeated run is still under way."""
    what = "is being trained right now" if model_uri is None else "has been trained already"
    where = "Its model will lie below" if model_uri is None else "Its model:"
    paragraphs = [
        [
            f"This drop of {run.dataset} repeats the run {facts['repeats']} ({facts['repeats_status']}).",
            "Files, manifest, base model and training image are the same.",
            "Nothing was started, nothing was paid for.",
        ],
        [where, model_uri or f"s3://{run.bucket}/runs/{facts['repeats']}/"],
        ['To train it once more, put "force": true into manifest.json and drop it again:', drop_again(run)],
    ]
    return of_run("repeated", "REPEATED", run, f"Repeated: {run.dataset} {what}", paragraphs)


def listed(findings: Sequence[Finding], most: int) -> Paragraph:
    """Two lines a finding: twenty of them are forty of the sixty lines."""
    lines: list[str] = []
    for number, finding in enumerate(findings[:most], 1):
        place = f"{shown(finding.path)}: " if finding.path else ""
        lines += [f"{number}. {place}{finding.message}", f"-> {finding.remedy}"]
    if len(findings) > most:
        lines.append(f"... and {len(findings) - most} more, in the report.")
    return lines
