"""The e-mails, one pure function a kind.

A subject is printable ASCII of at most 100 characters (SNS refuses others); a body is plain text of at most
60 lines, to be read on a phone. Links are S3 addresses and not presigned ones, which die with the role's
session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fine_tuning.failure import Failure
from fine_tuning.findings import Finding, count_by_code, in_order
from fine_tuning.run import Run

LONGEST_SUBJECT = 100
MOST_LINES = 60
_MOST_PROBLEMS = 20
_MOST_LOG_LINES = 10
_MOST_WARNINGS = 10
_LONGEST_LINE = 220
RETRY = "Then drop manifest.json again."


@dataclass(frozen=True)
class Message:
    """An e-mail before it is published. `kind` is one of docs/contracts.md's kinds of notify.py."""

    kind: str
    status: str
    dataset: str
    subject: str
    body: str

    def attributes(self, run_id: str) -> Iterator[tuple[str, str]]:
        """SNS message attributes, for subscription filters."""
        yield from (
            ("kind", self.kind),
            ("status", self.status),
            ("dataset", self.dataset),
            ("run_id", run_id),
        )


def rejected(run: Run, report: Mapping[str, Any]) -> Message:
    """Counts by code, the first problems with file and remedy, and where the whole report lies."""
    findings = in_order(Finding.from_document(document) for document in report["findings"])
    errors = [finding for finding in findings if finding.severity == "error"]
    lines = [
        f"The dataset {run.dataset} was not accepted, so nothing was trained and nothing was paid for.",
        "Your files are untouched.",
        "",
        f"{_counted(len(errors), 'problem')}:",
        *(f"  {count} x {code}" for code, count in list(count_by_code(errors).items())[:8]),
        "",
    ]
    # Two lines a problem: twenty of them are forty of the sixty lines.
    for number, finding in enumerate(errors[:_MOST_PROBLEMS], 1):
        lines += [f"{number}. {_place(finding)}{finding.message}", f"   -> {finding.remedy}"]
    if len(errors) > _MOST_PROBLEMS:
        lines.append(f"... and {len(errors) - _MOST_PROBLEMS} more.")
    warnings = sum(finding.severity == "warning" for finding in findings)
    if warnings:
        lines.append(f"The report also holds {_counted(warnings, 'warning')}.")
    lines += ["", f"The whole report: {run.uri(run.report_key)}", f"Correct the files. {RETRY}"]
    subject = f"Rejected: {run.dataset} has {_counted(len(errors), 'problem')}"
    return _message("rejected", "REJECTED", run, subject, lines)


def repeated(run: Run, facts: Mapping[str, Any], model_uri: str | None) -> Message:
    """`model_uri` is None while the repeated run is still under way."""
    what = "is being trained right now" if model_uri is None else "has been trained already"
    where = "Its model will lie below" if model_uri is None else "Its model:"
    return _message(
        "repeated",
        "REPEATED",
        run,
        f"Repeated: {run.dataset} {what}",
        [
            f"This drop of {run.dataset} repeats the run {facts['repeats']} ({facts['repeats_status']}):",
            "the same files, the same manifest, the same base model and the same training image.",
            "Nothing was started and nothing was paid for.",
            "",
            f"{where} {model_uri or f's3://{run.bucket}/runs/' + facts['repeats'] + '/'}",
            "",
            'To train it once more, put "force": true into manifest.json and drop it again.',
        ],
    )


def started(run: Run, facts: Mapping[str, Any], report: Mapping[str, Any]) -> Message:
    """With the warnings: a misspelt option that trains at its default is seen before the GPU is paid for."""
    plan = facts["plan"]
    findings = in_order(Finding.from_document(document) for document in report["findings"])
    warnings = [finding for finding in findings if finding.severity == "warning"]
    capacity = "spot" if plan["spot"] else "on demand"
    return _message(
        "started",
        "STARTING",
        run,
        f"Started: {run.dataset}, {plan['total_steps']} steps on {plan['instance_type']}",
        [
            f"The dataset {run.dataset} was accepted and its training is starting.",
            "",
            f"Steps:    {plan['total_steps']}",
            f"Instance: {plan['instance_type']} ({capacity})",
            f"Quote:    {_duration(plan['estimated_seconds'])}, {_money(plan['estimated_cost_usd'])}",
            f"Limit:    the job is ended after {_duration(plan['max_runtime_seconds'])}",
            f"Run:      {run.run_id}",
            f"Report:   {run.uri(run.report_key)}",
            *_warned(warnings),
            "",
            "The next e-mail tells how it ended.",
        ],
    )


def _warned(warnings: Sequence[Finding]) -> list[str]:
    if not warnings:
        return []
    lines = ["", f"{_counted(len(warnings), 'warning')}; to stop the run, abort its execution:"]
    for number, finding in enumerate(warnings[:_MOST_WARNINGS], 1):
        lines += [f"{number}. {_place(finding)}{finding.message}", f"   -> {finding.remedy}"]
    if len(warnings) > _MOST_WARNINGS:
        lines.append(f"... and {len(warnings) - _MOST_WARNINGS} more, in the report.")
    return lines


def _place(finding: Finding) -> str:
    return f"{finding.path}: " if finding.path else ""


def completed(run: Run, facts: Mapping[str, Any], plan: Mapping[str, Any]) -> Message:
    model, observation = facts["model"], facts["observation"]
    rehearsal = bool(facts.get("rehearsal"))
    samples: Sequence[str] = facts.get("samples", ())
    shown = [f"  {uri}" for uri in samples[:10]]
    if len(samples) > len(shown):
        shown.append(f"  ... and {len(samples) - len(shown)} more")
    quoted_time, total = plan.get("estimated_seconds"), observation.get("total") or plan.get("total_steps")
    # The container proves that every step was made; the last metric may still be on its way.
    loss = observation.get("loss") if observation.get("step") == total else None
    cost = "none, it is a rehearsal" if rehearsal else _money(observation.get("cost_usd"))
    lines = [
        f"The model of {run.dataset} is trained and its file was checked.",
        "",
        *(_REHEARSAL if rehearsal else ()),
        f"Model:   {model['uri']}",
        f"         {model['size']} bytes, {model['tensors']} tensors",
        f"         sha256 {model['sha256']}",
        *(["Samples:", *shown] if shown else []),
        f"Cost:    {cost} (quoted {_money(plan.get('estimated_cost_usd'))})",
        f"Time:    {_duration(observation.get('seconds'))} (quoted {_duration(quoted_time)})",
        f"Steps:   {_known(total)}",
        *([f"Loss:    {_known(loss)}"] if loss is not None else []),
        f"Run:     {run.run_id}",
        f"Report:  {run.uri(run.report_key)}",
        f"Origin:  {facts['provenance_uri']}",
        "",
        "Fetch the model:",
        f"  aws s3 cp {model['uri']} .",
    ]
    prefix = "Completed (rehearsal)" if rehearsal else "Completed"
    return _message("completed", "COMPLETED", run, f"{prefix}: the model of {run.dataset} is ready", lines)


_REHEARSAL = (
    "This is a REHEARSAL: a CPU stand-in trained a small model on your images, to prove the path.",
    "The file is no model to draw with.",
    "",
)


def failed(run: Run, failure: Failure) -> Message:
    lines = [
        f"The run of {run.dataset} failed {failure.where}.",
        "",
        f"Cause:      {failure.cause}",
        f"What to do: {failure.remedy} {RETRY}",
        *_log(failure.log_lines),
        "",
        *_spent(failure.observation),
        f"Run:    {run.run_id}",
        f"Report: {run.uri(run.report_key)}",
    ]
    return _message("failed", "FAILED", run, f"Failed: {run.dataset} {failure.where}", lines)


def stopped(run: Run, failure: Failure) -> Message:
    lines = [
        f"The run of {run.dataset} was stopped before it was done.",
        "",
        f"Cause:      {failure.cause}",
        f"What to do: {failure.remedy}",
        *_log(failure.log_lines),
        "",
        *_spent(failure.observation),
        f"Run:         {run.run_id}",
        f"Checkpoints: {run.uri(f'checkpoints/{run.run_id}/')} (as far as there are any; they expire)",
    ]
    return _message("stopped", "STOPPED", run, f"Stopped: {run.dataset}", lines)


def image_missing(run: Run) -> Message:
    return _message(
        "image-missing",
        "FAILED",
        run,
        f"Training image missing: {run.dataset} waits for its source",
        [
            f"The dataset {run.dataset} was accepted, but there is no training image to train it with,",
            "and no source to build one from. Nothing was started and nothing was paid for.",
            "",
            "What to do, in a clone of this project:",
            "  ./dev push-image-source",
            "It pushes container/ to the image's repository; the push builds the image.",
            f"{RETRY}",
            "",
            f"Run:    {run.run_id}",
            f"Report: {run.uri(run.report_key)}",
        ],
    )


FAILURES: Mapping[str, Callable[[Run, Failure], Message]] = {"failed": failed, "stopped": stopped}


def _message(kind: str, status: str, run: Run, subject: str, lines: Sequence[str]) -> Message:
    short = [_shortened(_one_line(line)) for line in lines]
    if len(short) > MOST_LINES:
        short = [*short[: MOST_LINES - 2], "...", short[-1]]
    return Message(kind, status, _attribute(run.dataset), printable_subject(subject), "\n".join(short) + "\n")


def _shortened(line: str) -> str:
    """An address or a command that is cut is worth nothing, so a line that holds one stays whole."""
    if len(line) <= _LONGEST_LINE or "s3://" in line:
        return line
    return f"{line[: _LONGEST_LINE - 3]}..."


def printable_subject(text: str) -> str:
    """Printable ASCII of at most 100 characters that does not begin with a blank, as SNS demands."""
    ascii_text = "".join(c if " " <= c <= "~" else "?" for c in text).strip()
    return ascii_text if len(ascii_text) <= LONGEST_SUBJECT else f"{ascii_text[: LONGEST_SUBJECT - 3]}..."


def _attribute(text: str) -> str:
    return text[:256] or "dataset"


def _one_line(text: str) -> str:
    """A file's name or an error's text must not draw lines of its own."""
    return "".join(c if c.isprintable() else " " for c in text)


def _log(lines: Sequence[str]) -> list[str]:
    return ["", "Last log lines:", *(f"  {line}" for line in lines[-_MOST_LOG_LINES:])] if lines else []


def _spent(observation: Mapping[str, Any] | None) -> list[str]:
    if not observation or observation.get("seconds") is None:
        return []
    return [f"Spent:  {_duration(observation['seconds'])}, {_money(observation.get('cost_usd'))}"]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _known(value: Any) -> str:
    return "unknown" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _money(usd: float | None) -> str:
    return "cost unknown" if usd is None else f"{usd:.2f} USD"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "time unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
