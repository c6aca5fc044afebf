"""Whether a training moves: the flow's own watchdog, outside the one in the container. Pure.

Only what was seen counts: while SageMaker prepares, or looks for spot capacity, or CloudWatch does not answer, nobody
can tell whether a step is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from fine_tuning.observation import Observation

Progress = Mapping[str, Any]
_TRAINING = "Training"  # secondary status of a job whose container runs


def moved(before: Progress | None, seen: Observation, now: datetime) -> dict[str, Any]:
    """`{"training_job", "phase", "step", "since"}`: `since` is when the training was last seen to move."""
    here = {"training_job": seen.training_job, "phase": seen.secondary_status, "step": seen.step}
    if before is not None and not seen.metrics_read:
        here["step"] = before.get("step")
    if before is not None and all(before.get(name) == value for name, value in here.items()):
        return dict(before)
    return {**here, "since": now.isoformat(timespec="seconds")}


def is_stalled(progress: Progress, seen: Observation, now: datetime, limit: timedelta) -> bool:
    """Whether the container runs and has made no step for that long."""
    can_tell = seen.status == "Executing" and seen.secondary_status == _TRAINING and seen.metrics_read
    return can_tell and now - datetime.fromisoformat(progress["since"]) >= limit


def milestone(before: Progress | None, seen: Observation, milestones: Sequence[int]) -> int | None:
    """The highest share of the steps, in percent, that was passed since the last look."""
    if not seen.step or not seen.total:
        return None
    done, was_done = (100 * step / seen.total for step in (seen.step, (before or {}).get("step") or 0))
    return max((each for each in milestones if was_done < each <= done), default=None)
