"""The invariants can fail, and docs/reliability.md lists the faults that the suite plays."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.catalogue import SCENARIOS
from tests.faults.invariants import Evidence, is_over, violations

PAGE = Path(__file__).parents[2] / "docs/reliability.md"
WAY = ("RECEIVED", "INSPECTING", "PLANNED", "STARTING", "TRAINING", "VERIFYING", "COMPLETED")


def record(*way: str, **members: Any) -> dict[str, Any]:
    """A record that came along these statuses."""
    way = way or WAY
    history = [{"status": status, "at": f"2026-01-01T00:00:{at:02}"} for at, status in enumerate(way)]
    return {"status": way[-1], "history": history, "model": {"size": 9}, **members}


TRUE = Evidence(
    records=[record()],
    mails=["started", "completed"],
    jobs=["Completed"],
    executions=["Succeeded"],
    flow="SUCCEEDED",
    model_size=9,
    before={"a.jpg@1": "e"},
    after={"a.jpg@1": "e"},
)


def test_a_true_end_violates_nothing() -> None:
    assert violations(TRUE, frozenset({"COMPLETED"})) == []
    assert is_over(TRUE)


BROKEN = {
    "no run": (replace(TRUE, records=[]), "0 records"),
    "two runs": (replace(TRUE, records=[record(), record()]), "2 records"),
    "not over": (replace(TRUE, records=[record(*WAY[:-1])]), "still VERIFYING"),
    "untrue": (replace(TRUE, records=[record("RECEIVED", "FAILED")]), "not true"),
    "no cause": (replace(TRUE, records=[record("RECEIVED", "FAILED")]), "neither why"),
    "no model": (replace(TRUE, model_size=None), "the bucket has None"),
    "another model": (replace(TRUE, model_size=8), "the bucket has 8"),
    "no job": (replace(TRUE, jobs=["Failed"]), "without a completed job"),
    "a flow": (replace(TRUE, flow="RUNNING"), "flow still runs"),
    "a job": (replace(TRUE, jobs=["Completed", "InProgress"]), "job is still InProgress"),
    "an execution": (replace(TRUE, executions=["Stopping"]), "execution is still Stopping"),
    "no mail": (replace(TRUE, mails=["started"]), "0 final mails"),
    "two mails": (replace(TRUE, mails=["completed", "completed"]), "2 final mails"),
    "a lie": (replace(TRUE, mails=["failed"]), "a mail says failed"),
    "two starts": (replace(TRUE, mails=["started", "started", "completed"]), "too often"),
    "way back": (replace(TRUE, records=[record("TRAINING", "PLANNED", "FAILED")]), "followed by PLANNED"),
    "second end": (replace(TRUE, records=[record("FAILED", "COMPLETED")]), "FAILED was followed"),
    "other end": (replace(TRUE, records=[{**record(), "status": "FAILED"}]), "history ends with"),
    "changed file": (replace(TRUE, after={"a.jpg@1": "f"}), "touched"),
    "new file": (replace(TRUE, after={**TRUE.before, "b@1": "e"}), "b@1 of the dataset was touched"),
    "lost file": (replace(TRUE, after={}), "touched"),
}


@pytest.mark.parametrize(("seen", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_every_invariant_can_fail(seen: Evidence, words: str) -> None:
    assert words in "\n".join(violations(seen, frozenset({"COMPLETED"})))


def test_time_that_goes_back_is_seen() -> None:
    broken = record()
    broken["history"][1]["at"] = "2025"
    assert "the history goes back in time" in violations(
        replace(TRUE, records=[broken]), frozenset({"COMPLETED"})
    )


def test_two_mails_pass_where_the_outcome_of_publish_is_lost() -> None:
    twice = replace(TRUE, mails=["completed", "completed"])
    assert violations(twice, frozenset({"COMPLETED"}), most_mails=2) == []


def test_at_least_forty_faults_have_names_of_their_own() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names) >= 40


def test_the_page_lists_the_faults_of_the_suite() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \| (.+?) \|", PAGE.read_text(encoding="utf-8"), re.M)
    assert {name: what for name, what, _ in rows} == {one.name: one.what for one in SCENARIOS}
    ends = {one.name: one.ends for one in SCENARIOS}
    assert all(outcome in ends[name] for name, _, outcome in rows)
