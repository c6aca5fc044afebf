"""A line of `./dev runs`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

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


@pytest.mark.parametrize("run_id", ["photographs-0123456789ab", f"{'a' * 40}-0123456789ab"])
@pytest.mark.parametrize("width", [80, 100])
def test_a_runs_id_is_whole_on_a_narrow_terminal(run_id: str, width: int) -> None:
    at = datetime.now(UTC).isoformat()
    record = {
        **COMPLETED,
        "run_id": run_id,
        "status": "WAITING_FOR_CAPACITY",
        "history": [{"status": "RECEIVED", "at": at}],
        "failure": {"cause": "AWS has no such instance."},
    }
    console = Console(width=width)
    with console.capture() as shown:
        console.print(runs.table_of([record], lambda record: None))
    assert run_id in shown.get()
    letters = "".join(shown.get().split())
    assert "…" not in letters
