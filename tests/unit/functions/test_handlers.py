"""A handler reads as a sentence; what it works with is given to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functions_data import REPOSITORY

ALLOWED = {"__future__", "typing", "datetime", "fine_tuning"}
HANDLERS = sorted((REPOSITORY / "functions").glob("*.py"))


def imported(source: str) -> Iterator[str]:
    """The top-level package of every import, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0] if node.level == 0 else "." * node.level


def test_there_are_handlers() -> None:
    assert len(HANDLERS) >= 12


@pytest.mark.parametrize("file", HANDLERS, ids=lambda file: file.stem)
def test_a_handler_imports_neither_boto3_nor_os_nor_another_handler(file: Path) -> None:
    assert set(imported(file.read_text(encoding="utf-8"))) <= ALLOWED


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import os.path\ndef handler():\n    from boto3 import client\n    from . import notify\n"
    assert set(imported(source)) == {"os", "boto3", "."}
