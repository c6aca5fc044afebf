"""What every e-mail is made of: subject, paragraphs, links, attributes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fine_tuning.console import Link
from fine_tuning.run import Run
from fine_tuning.statuses import OF_MAIL

LONGEST_SUBJECT = 100
MOST_LINES = 60
_MOST_LOG_LINES = 10
_LONGEST_LINE = 220
_LONGEST_ATTRIBUTE = 256
# Of these a line holds one that is worth nothing when it is cut.
_ADDRESSES = ("s3://", "https://", "arn:")

Paragraph = Sequence[str]


@dataclass(frozen=True)
class Message:
    """An e-mail before it is published.

    Attributes:
        kind: one of docs/contracts.md's kinds.
        identity: what it is published once for: a run's end, or a kind with its run or build, and the occasion
            where a run gets several of one kind.
        attributes: SNS message attributes, for subscription filters; docs/operations.md lists them.
    """

    kind: str
    identity: Mapping[str, str]
    subject: str
    paragraphs: tuple[Paragraph, ...]
    attributes: Mapping[str, str | float]
    links: tuple[Link, ...] = ()

    @property
    def status(self) -> str:
        return str(self.attributes["status"])

    @property
    def body(self) -> str:
        shown = [paragraph for paragraph in (*self.paragraphs, _shown(self.links)) if paragraph]
        lines = [line for paragraph in shown for line in (*paragraph, "")][:-1]
        short = [_shortened(_one_line(line)) for line in lines]
        if len(short) > MOST_LINES:
            # What to type and where to look stands at the end, what it is about at the beginning.
            end = MOST_LINES // 3
            short = [*short[: MOST_LINES - end - 1], "...", *short[-end:]]
        return "\n".join(short) + "\n"

    def with_links(self, links: Iterable[Link]) -> Message:
        return replace(self, links=tuple(links))


def of_run(
    kind: str,
    status: str,
    run: Run,
    subject: str,
    paragraphs: Iterable[Paragraph],
    *,
    needs_action: bool = False,
    occasion: str = "",
    instance_type: str | None = None,
    cost_usd: float | None = None,
) -> Message:
    """A mail of a run; `occasion` tells several of one kind apart."""
    attributes: dict[str, str | float] = {
        "kind": kind,
        "status": status,
        "dataset": _attribute(run.dataset),
        "run_id": run.run_id,
        "action": "needed" if needs_action else "none",
    }
    if instance_type:
        attributes["instance_type"] = instance_type
    if cost_usd is not None:
        attributes["cost_usd"] = round(float(cost_usd), 2)
    # A run has one end, so that one mail tells of it, whoever writes it and of whatever kind.
    identity = {"run_id": run.run_id, "kind": "final" if kind in OF_MAIL else kind}
    if occasion:
        identity["occasion"] = occasion
    return Message(kind, identity, printable_subject(subject), tuple(paragraphs), attributes)


def of_image(
    kind: str,
    status: str,
    build_id: str,
    subject: str,
    paragraphs: Iterable[Paragraph],
    links: Iterable[Link],
    *,
    needs_action: bool = False,
) -> Message:
    """A mail of a build of the training image, which belongs to no run."""
    attributes: dict[str, str | float] = {
        "kind": kind,
        "status": status,
        "build_id": _attribute(build_id),
        "action": "needed" if needs_action else "none",
    }
    identity = {"build_id": build_id, "kind": kind}
    return Message(kind, identity, printable_subject(subject), tuple(paragraphs), attributes, tuple(links))


def printable_subject(text: str) -> str:
    """Printable ASCII of at most 100 characters that does not begin with a blank, as SNS demands."""
    ascii_text = "".join(c if " " <= c <= "~" else "?" for c in text).strip()
    return ascii_text if len(ascii_text) <= LONGEST_SUBJECT else f"{ascii_text[: LONGEST_SUBJECT - 3]}..."


def copy_command(source: str, target: str) -> str:
    """A command to type; a key may hold blanks."""
    return f"aws s3 cp {shlex.quote(source)} {shlex.quote(target)}"


def drop_again(run: Run) -> str:
    return copy_command("manifest.json", run.uri(run.manifest_key))


def log(lines: Sequence[str]) -> Paragraph:
    return ["Last log lines:", *lines[-_MOST_LOG_LINES:]] if lines else []


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def known(value: Any) -> str:
    return "unknown" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def money(usd: float | None) -> str:
    return "cost unknown" if usd is None else f"{usd:.2f} USD"


def size(size_bytes: float) -> str:
    """In the decimal units that S3's and ECR's consoles show."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes:.0f} bytes"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "time unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _shown(links: Sequence[Link]) -> Paragraph:
    return [line for link in links for line in (f"{link.label}:", link.address)]


def _shortened(line: str) -> str:
    """An address or a command that is cut is worth nothing, so a line that holds one stays whole."""
    if len(line) <= _LONGEST_LINE or any(address in line for address in _ADDRESSES):
        return line
    return f"{line[: _LONGEST_LINE - 3]}..."


def _one_line(text: str) -> str:
    """A file's name or an error's text must not draw lines of its own."""
    return "".join(c if c.isprintable() else " " for c in text)


def _attribute(text: str) -> str:
    """SNS refuses an empty value, and characters that XML does not know."""
    return "".join(c if c.isprintable() else "?" for c in text)[:_LONGEST_ATTRIBUTE] or "-"
