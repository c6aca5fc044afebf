"""A line of `./dev runs`."""

from __future__ import annotations

from typing import Any

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
