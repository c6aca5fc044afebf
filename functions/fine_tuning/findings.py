"""What was found wrong, or worth knowing, in what a user dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from fine_tuning.catalogue import CATALOGUE, Severity

_WEIGHT: dict[str, int] = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Finding:
    """One problem, in one file.

    Attributes:
        code: stable name that tools can count, e.g. `image-unreadable`; one of the catalogue.
        severity: an error rejects the dataset; a warning and a note do not.
        path: relative to the manifest's folder; `manifest.json` itself, or empty for the dataset as a whole.
        message: what is wrong, one sentence.
        remedy: what to change, one sentence.
    """

    code: str
    severity: Severity
    path: str
    message: str
    remedy: str

    def __post_init__(self) -> None:
        meaning = CATALOGUE.get(self.code)
        if meaning is None or self.severity not in meaning.severities:
            raise ValueError(f"No finding is a {self.severity} with the code '{self.code}' (catalogue.py).")

    def as_document(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Finding:
        return cls(**{name: document[name] for name in ("code", "severity", "path", "message", "remedy")})


def error(code: str, path: str, message: str, remedy: str) -> Finding:
    return Finding(code, "error", path, message, remedy)


def warning(code: str, path: str, message: str, remedy: str) -> Finding:
    return Finding(code, "warning", path, message, remedy)


def note(code: str, path: str, message: str, remedy: str = "Nothing to do.") -> Finding:
    return Finding(code, "note", path, message, remedy)


def sentence(text: str) -> str:
    """Begun with a capital and ended with a full stop; str.capitalize would make all else small."""
    return f"{text[:1].upper()}{text[1:]}."


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then by file, so that a report reads the same every time."""
    return sorted(findings, key=lambda f: (_WEIGHT[f.severity], f.path, f.code, f.message))


def has_errors(findings: Iterable[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def count_by_code(findings: Iterable[Finding]) -> dict[str, int]:
    """Code → how often, the most frequent first."""
    return dict(Counter(finding.code for finding in findings).most_common())
