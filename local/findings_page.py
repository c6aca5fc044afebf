"""`python -m local.findings_page` writes docs/findings.md from the catalogue of codes."""

from __future__ import annotations

from pathlib import Path

from fine_tuning.catalogue import AREAS, CATALOGUE

PAGE = Path(__file__).parent.parent / "docs" / "findings.md"
_INTRODUCTION = f"""# Findings

Written by `./dev render-findings` from `functions/fine_tuning/catalogue.py`; a test fails when it is stale.

What is judged before a GPU is paid for is told as findings: `code`, `severity`, `path`, `message` and `remedy` in
`report.json` and in e-mails. An **error** rejects the dataset; a **warning** and a **note** do not. The message of a
finding names the file, the place and the value; here stands what each of the {len(CATALOGUE)} codes means.
"""


def rendered() -> str:
    """The whole page."""
    lines = [_INTRODUCTION]
    for area, codes in AREAS.items():
        lines += [f"## {area}", "", "| code | severity | cause | remedy |", "|---|---|---|---|"]
        lines += [
            f"| `{code}` | {' or '.join(meaning.severities)} | {_cell(meaning.cause)} | {_cell(meaning.remedy)} |"
            for code, meaning in codes.items()
        ]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(rendered(), encoding="utf-8")
