"""What is measured of runs, as CloudWatch metrics in the namespace of the stack.

Every metric costs for each combination of its dimensions: only the outcome is one, of five values. SageMaker publishes
the GPU's utilization itself, minute by minute and under each job's own name; here it is one value a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from fine_tuning.attempts import cost_of_earlier
from fine_tuning.observation import WITHOUT_INSTANCE, ended_early

# How far a training may outlast its quote before somebody should look: the quote is an estimate, and finding and
# preparing an instance is not in it.
_PATIENCE = 1.5
_PREPARATION = timedelta(hours=1)
# A wait for an instance is ended by the flow's deadline. A look that is older than two of the watch's longest intervals
# says nothing about the present.
_FRESH = timedelta(hours=2)


@dataclass(frozen=True)
class Measurement:
    name: str
    unit: Literal["Count", "Seconds", "Percent", "None"]
    value: float
    dimensions: Mapping[str, str] = field(default_factory=dict)


def of_start(plan: Mapping[str, Any]) -> Iterator[Measurement]:
    """Of a training that is paid for from now on."""
    if plan.get("estimated_cost_usd") is not None:
        yield Measurement("QuotedUsd", "None", plan["estimated_cost_usd"])


def of_ending(record: Mapping[str, Any]) -> Iterator[Measurement]:
    """Of a run whose record has just come to its end."""
    yield Measurement("Runs", "Count", 1, {"outcome": record["status"]})
    plan, observation = record.get("plan") or {}, record.get("observation") or {}
    earlier, last = cost_of_earlier(record), observation.get("cost_usd")
    spent = earlier + last if last is not None else earlier or None
    quoted = plan.get("estimated_cost_usd")
    if spent is not None:
        yield Measurement("SpentUsd", "None", spent)
    # A run that ended early says nothing about its quote.
    if spent is not None and quoted and record["status"] == "COMPLETED" and not ended_early(observation):
        yield Measurement("SpentOfQuote", "Percent", round(100 * spent / quoted, 1))
    if (busy := observation.get("gpu_utilization")) is not None:
        yield Measurement("GpuUtilization", "Percent", busy)
    accepted, began = _moment(record, "PLANNED"), _moment(record, "TRAINING")
    if accepted and began:
        yield Measurement("QueueSeconds", "Seconds", (began - accepted).total_seconds())


def of_silence(silent_runs: int) -> Iterator[Measurement]:
    """Also none, so that an alarm ends."""
    yield Measurement("SilentRuns", "Count", silent_runs)


def is_silent(record: Mapping[str, Any], now: datetime) -> bool:
    """Whether a run trains for longer than its quote and a good margin, and has told nobody of an end.

    The quote of the trainer's own U-Net: the container may have gone back to it.
    """
    plan = record.get("plan") or {}
    began, quoted = _moment(record, "TRAINING"), plan.get("own_seconds")
    if record["status"] != "TRAINING" or began is None or quoted is None:
        return False
    seen = record.get("observation") or {}
    looked = datetime.fromisoformat(seen["observed_at"]) if "observed_at" in seen else None
    if looked and looked >= began:  # and not a look at an attempt before
        if seen.get("secondary_status") in WITHOUT_INSTANCE and now - looked < _FRESH:
            return False
        began = datetime.fromisoformat(seen.get("training_started_at") or began.isoformat())
    return now - began > _PATIENCE * timedelta(seconds=quoted) + _PREPARATION


def _moment(record: Mapping[str, Any], status: str) -> datetime | None:
    """When the run last came to a status."""
    moments = [change["at"] for change in record.get("history", ()) if change["status"] == status]
    return datetime.fromisoformat(moments[-1]) if moments else None
