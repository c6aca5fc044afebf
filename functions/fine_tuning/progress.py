"""Whether a training moves: the flow's own watchdog, outside the one in the container. Pure.

Only what was seen counts: while SageMaker prepares, or looks for spot capacity, or CloudWatch does not answer or has
nothing new of the job, nobody can tell whether a step is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from fine_tuning.observation import Observation

Progress = Mapping[str, Any]
Stall = Literal["stall", "no-first-step"]
_TRAINING = "Training"  # secondary status of a job whose container runs
# Of the time quoted for what comes before the first step; as much is granted to the whole job (quote.py).
_MARGIN = 2


def moved(before: Progress | None, seen: Observation, now: datetime) -> dict[str, Any]:
    """`{"training_job", "phase", "step", "since", "stepped", "unseen_since"?}`.

    `since` is when the training was last seen to move, later by as long as nobody could see it since; `stepped`,
    whether a step was seen in this phase: after a spot interruption the last step before it is still the latest,
    while everything is prepared anew. `unseen_since` is there from the first look that cannot see to the next that
    can.
    """
    here = {"training_job": seen.training_job, "phase": seen.secondary_status, "step": seen.step}
    if before is not None and seen.step is None and not seen.metrics_fresh:
        here["step"] = before.get("step")
    if before is not None and all(before.get(name) == value for name, value in here.items()):
        return _still(before, seen, now)
    unseen = {} if _is_seen(seen) else {"unseen_since": now.isoformat(timespec="seconds")}
    last = before if before is not None and before.get("training_job") == seen.training_job else {}
    stepped = here["step"] not in (None, last.get("step"))
    stepped = stepped or (last.get("phase") == here["phase"] and last.get("stepped", False))
    return {**here, "since": now.isoformat(timespec="seconds"), "stepped": stepped, **unseen}


def _still(before: Progress, seen: Observation, now: datetime) -> dict[str, Any]:
    """Nothing has moved, as far as was seen."""
    unseen_since = before.get("unseen_since")
    if not _is_seen(seen):
        return {**before, "unseen_since": unseen_since or now.isoformat(timespec="seconds")}
    progress = {name: value for name, value in before.items() if name != "unseen_since"}
    if unseen_since:
        hidden = now - datetime.fromisoformat(unseen_since)
        since = datetime.fromisoformat(progress["since"]) + hidden
        progress["since"] = since.isoformat(timespec="seconds")
    return progress


def _is_seen(seen: Observation) -> bool:
    """Whether a step that was made would show. Outside of training there is none to be seen."""
    return seen.secondary_status != _TRAINING or seen.metrics_fresh


def long_unseen(progress: Progress, now: datetime, limit: timedelta) -> str | None:
    """Since when, ISO 8601, nobody can see whether a training moves, where that is for longer than `limit`."""
    since: str | None = progress.get("unseen_since")
    return since if since and now - datetime.fromisoformat(since) >= limit else None


def stall(
    progress: Progress, seen: Observation, now: datetime, limit: timedelta, quoted: timedelta
) -> Stall | None:
    """Why a training whose container runs should be stopped: it has made no step for too long.

    Args:
        limit: between two steps, and before the first.
        quoted: for start-up and the encoding of every image; the first step may take twice as long, if that is more.
    """
    if seen.status != "Executing" or seen.secondary_status != _TRAINING or not seen.metrics_fresh:
        return None
    still = now - datetime.fromisoformat(progress["since"])
    if progress["stepped"]:
        return "stall" if still >= limit else None
    return "no-first-step" if still >= max(limit, _MARGIN * quoted) else None


def milestone(before: Progress | None, seen: Observation, milestones: Sequence[int]) -> int | None:
    """The highest share of the steps, in percent, that was passed since the last look."""
    if not seen.step or not seen.total:
        return None
    done, was_done = (100 * step / seen.total for step in (seen.step, (before or {}).get("step") or 0))
    return max((each for each in milestones if was_done < each <= done), default=None)
