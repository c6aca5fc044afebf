"""Until when the flow lets a job wait for its instance, and train: its own limits, behind SageMaker's. Pure.

SageMaker retries by itself while it has no on-demand instance, without a limit that its documentation tells (secondary
status Starting or Pending), and MaxRuntimeInSeconds does not count yet. On spot capacity its MaxWaitTimeInSeconds
counts from the job's creation, whatever the time is spent on, and so does the flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from fine_tuning.observation import WITHOUT_INSTANCE, Observation

Overdue = Literal["deadline", "no-instance"]
# Beyond the job's own time limit, which ends it sooner unless SageMaker fails to; then its files are uploaded.
_MARGIN = timedelta(hours=2)


def overdue(seen: Observation, now: datetime, deadline: datetime, rung: Mapping[str, Any]) -> Overdue | None:
    """Why an attempt should be stopped; None while it has time.

    Args:
        deadline: until when it may wait for an instance; on spot capacity, until when it may train, too.
        rung: of the ladder.
    """
    if seen.status != "Executing":
        return None
    # Before there is a job, it waits for one.
    waits = seen.training_started_at is None and seen.secondary_status in {None, *WITHOUT_INSTANCE}
    if not waits and not rung["spot"]:
        began = datetime.fromisoformat(seen.training_started_at) if seen.training_started_at else deadline
        deadline = began + timedelta(seconds=rung["max_runtime_seconds"]) + _MARGIN
    if now < deadline:
        return None
    return "no-instance" if waits else "deadline"
