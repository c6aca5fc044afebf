"""The catalogue of codes, the page that is written from it, and the code that uses it agree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from fine_tuning.catalogue import AREAS, CATALOGUE
from fine_tuning.findings import Finding
from local.findings_page import PAGE, rendered

FUNCTIONS = Path(__file__).parent.parent.parent / "functions"
MAKERS = ("error", "warning", "note", "Finding")


def codes_in(source: Path) -> Iterator[str]:
    """Every code that a call of error, warning, note or Finding is given as a literal."""
    for node in ast.walk(ast.parse(source.read_bytes())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in MAKERS
            and node.args
        ):
            code = node.args[0]
            if isinstance(code, ast.Constant) and isinstance(code.value, str):
                yield code.value


def test_the_page_is_the_one_that_the_catalogue_renders() -> None:
    assert PAGE.read_text(encoding="utf-8") == rendered(), "run ./dev render-findings"


def test_every_code_that_the_functions_use_is_in_the_catalogue() -> None:
    used = {code for source in FUNCTIONS.rglob("*.py") for code in codes_in(source)}
    assert used - set(CATALOGUE) == set()
    assert len(used) > 30  # the search itself still finds them


def test_every_code_of_the_catalogue_is_written_somewhere_in_the_functions() -> None:
    sources = [path for path in FUNCTIONS.rglob("*.py") if path.name != "catalogue.py"]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    # Codes of the JSON reader are put together: "manifest-" and the reader's own code.
    assert [
        code
        for code in CATALOGUE
        if f'"{code.removeprefix("manifest-")}"' not in text and f'"{code}"' not in text
    ] == []


def test_no_code_stands_in_two_areas() -> None:
    assert len(CATALOGUE) == sum(len(codes) for codes in AREAS.values())


@pytest.mark.parametrize(("code", "severity"), [("no-such-code", "error"), ("caption-not-utf8", "note")])
def test_a_finding_outside_the_catalogue_cannot_be_made(code: str, severity: str) -> None:
    with pytest.raises(ValueError, match=code):
        Finding(code, severity, "", "message", "remedy")  # type: ignore[arg-type]
