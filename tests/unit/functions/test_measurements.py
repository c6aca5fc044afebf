"""What is measured of runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fine_tuning import measurements, statuses

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def record(status: str = "COMPLETED", **more: Any) -> dict[str, Any]:
    stations = {"PLANNED": 0, "TRAINING": 95.5}
    history = [
        {"status": name, "at": (NOON + timedelta(seconds=after)).isoformat(timespec="milliseconds")}
        for name, after in stations.items()
    ]
    plan = {"estimated_cost_usd": 2.0, "own_seconds": 3600}
    return {
        "status": status,
        "history": history,
        "plan": plan,
        "observation": {"cost_usd": 1.5, "gpu_utilization": 91.5},
        **more,
    }


def measured(document: dict[str, Any]) -> dict[str, float]:
    return {one.name: one.value for one in measurements.of_ending(document)}


def test_a_completed_run_is_counted_with_its_cost_against_its_quote_and_its_wait() -> None:
    costs = {"SpentUsd": 1.5, "SpentOfQuote": 75.0}
    assert measured(record()) == {"Runs": 1, **costs, "QueueSeconds": 95.5, "GpuUtilization": 91.5}


def test_what_ended_early_says_nothing_about_its_quote() -> None:
    assert "SpentOfQuote" not in measured(record("FAILED"))
    early = {**record()["observation"], "step": 300, "total": 1000}
    assert "SpentOfQuote" not in measured(record(observation=early))
    assert "SpentOfQuote" in measured(record(observation={**early, "step": 1000}))


def test_what_was_never_planned_is_only_counted() -> None:
    assert measured({"status": "REJECTED", "history": []}) == {"Runs": 1}


def test_a_run_without_a_price_has_no_cost_rather_than_none_at_all() -> None:
    free = record(observation={"cost_usd": None}, plan={"estimated_cost_usd": 0.0})
    assert measured(free) == {"Runs": 1, "QueueSeconds": 95.5}
    assert list(measurements.of_start({"estimated_cost_usd": None})) == []


def test_the_only_dimension_of_a_run_is_its_outcome() -> None:
    """Each combination of dimensions is a metric that is paid for."""
    combinations = {
        (one.name, *one.dimensions.items())
        for status in statuses.FINAL
        for one in measurements.of_ending(record(status))
    }
    assert len(combinations) == len(statuses.FINAL) + 4


@pytest.mark.parametrize(
    ("hours", "silent"),
    [(1.0, False), (2.4, False), (2.6, True), (40.0, True)],
)
def test_a_run_is_silent_an_hour_after_one_and_a_half_times_its_quote(hours: float, silent: bool) -> None:
    assert measurements.is_silent(record("TRAINING"), NOON + timedelta(hours=hours)) is silent


def test_a_run_with_the_trainers_own_unet_may_take_what_was_quoted_for_it() -> None:
    plan = {**record("TRAINING")["plan"], "own_seconds": 2 * 3600}
    assert not measurements.is_silent(record("TRAINING", plan=plan), NOON + timedelta(hours=3.9))
    assert measurements.is_silent(record("TRAINING", plan=plan), NOON + timedelta(hours=4.1))


def test_a_run_is_measured_from_its_latest_training() -> None:
    again = record("TRAINING")
    again["history"].append({"status": "TRAINING", "at": (NOON + timedelta(hours=5)).isoformat()})
    assert not measurements.is_silent(again, NOON + timedelta(hours=7))


@pytest.mark.parametrize(
    ("seen", "silent"),
    [
        # Two days after the start of its training by the record, of a quote of an hour:
        ({"secondary_status": "Starting", "age": 600}, False),
        ({"secondary_status": "Interrupted", "age": 600, "training_started_at": 2}, False),
        # Whoever does not look any more cannot tell that it still waits.
        ({"secondary_status": "Starting", "age": 8000}, True),
        ({"secondary_status": "Training", "age": 600}, True),
        ({"secondary_status": "Training", "age": 600, "training_started_at": 46}, False),
        ({"secondary_status": "Training", "age": 600, "training_started_at": 45}, True),
        # Of an attempt before this one.
        ({"secondary_status": "Starting", "age": 50 * 3600}, True),
    ],
)
def test_a_wait_for_an_instance_is_no_silence(seen: dict[str, Any], silent: bool) -> None:
    now = NOON + timedelta(hours=48)
    began = seen.get("training_started_at")
    observation = {
        "secondary_status": seen["secondary_status"],
        "observed_at": (now - timedelta(seconds=seen["age"])).isoformat(),
        "training_started_at": (NOON + timedelta(hours=began)).isoformat() if began else None,
    }
    assert measurements.is_silent(record("TRAINING", observation=observation), now) is silent


def test_a_run_that_does_not_train_is_not_silent() -> None:
    later = NOON + timedelta(days=9)
    assert not measurements.is_silent({"status": "PLANNED", "history": []}, later)
    assert not measurements.is_silent(record("TRAINING", plan=None), later)
    # It has trained, found no instance, and waits for the next one.
    assert not measurements.is_silent(record("WAITING_FOR_CAPACITY"), later)
