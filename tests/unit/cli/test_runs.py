"""A line of `./dev runs`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.cli import runs

COMPLETED: dict[str, Any] = {
    "run_id": "cats-0123456789ab",
    "status": "COMPLETED",
    "observation": {"step": 60, "total": 60, "cost_usd": 0.22},
}


def cost(**record: Any) -> str:
    return runs.row({**COMPLETED, **record})[runs.COLUMNS.index("cost")]


def test_a_rehearsal_costs_what_its_mail_says() -> None:
    assert cost() == "$0.22"
    assert cost(rehearsal=False) == "$0.22"
    assert cost(rehearsal=True) == "none"
    assert cost(observation={}) == ""


def seconds(record: dict[str, Any]) -> int:
    return int(runs.row(record)[runs.COLUMNS.index("took")].removesuffix(" s"))


def test_what_is_under_way_has_taken_the_time_up_to_now() -> None:
    begun = datetime.now(UTC) - timedelta(minutes=3)
    times = [("RECEIVED", begun), ("TRAINING", begun + timedelta(seconds=3))]
    history = [{"status": status, "at": at.isoformat()} for status, at in times]
    assert seconds({**COMPLETED, "history": history}) == 3
    assert 180 <= seconds({**COMPLETED, "status": "TRAINING", "history": history}) < 200


def test_a_run_is_one_line_on_a_terminal_of_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    longest = f"{'a' * 40}-0123456789ab"
    address = f"s3://sagemaker-kohya-ss-fine-tuning-111122223333/runs/{longest}/output/model/last.safetensors"
    done = {**COMPLETED, "run_id": longest, "model": {"uri": address}}
    waiting = {"run_id": "cats-0123456789ab", "status": "WAITING_FOR_CAPACITY"}
    header, first, second = runs.lines_of(runs.table_of([done, waiting], lambda record: None))
    assert header.split()[:2] == ["run", "status"]
    assert (first.split()[0], first.split()[-1]) == (longest, address)
    assert second.split() == ["cats-0123456789ab", "WAITING_FOR_CAPACITY"]
    assert second == second.rstrip()
