"""`python -m pipeline` writes between its markers and nowhere else."""

from __future__ import annotations

import json

import pytest

from pipeline.__main__ import BEGIN, END, WIDTH, layout, written_into


def test_the_template_around_the_markers_is_left_alone() -> None:
    template = f"before\n        {BEGIN}\nold\n        {END}\nafter\n"
    once = written_into(template, {"Version": "2020-12-01"})
    assert once.startswith(f"before\n        {BEGIN}\n")
    assert once.endswith(f"        {END}\nafter\n")
    assert "old" not in once
    assert written_into(once, {"Version": "2020-12-01"}) == once


def test_a_template_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        written_into("nothing", {})


def test_the_layout_is_the_same_json_in_short_lines() -> None:
    value = {"list": [{"name": "x" * 40, "more": list(range(30))} for _ in range(3)], "empty": []}
    text = layout(value)
    assert json.loads(text) == value
    assert max(len(line) for line in text.splitlines()) <= WIDTH
