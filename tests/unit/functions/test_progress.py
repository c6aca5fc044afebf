"""Whether a training moves, and what it has passed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fine_tuning.instances import Prices
from fine_tuning.observation import Observation, observe
from fine_tuning.progress import Stall, long_unseen, milestone, moved, stall

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LIMIT, QUOTED = timedelta(hours=1), timedelta(hours=3)


def seen(step: int | None = 10, phase: str = "Training", **changes: Any) -> Observation:
    job = {"TrainingJobName": "j", "SecondaryStatus": phase}
    metrics = {"train:total": 100.0} | ({} if step is None else {"train:step": float(step)})
    return replace(
        observe({"PipelineExecutionStatus": "Executing"}, [], job, metrics, NOW, Prices(), NOW), **changes
    )


def stalled(*looks: tuple[int, Observation], quoted: timedelta = QUOTED) -> Stall | None:
    """Of looks at the training, each so many minutes after the first."""
    progress, last = None, None
    for minutes, observation in looks:
        at = NOW + timedelta(minutes=minutes)
        progress, last = moved(progress, observation, at), (observation, at)
    assert progress is not None
    assert last is not None
    return stall(progress, last[0], last[1], LIMIT, quoted)


def test_a_training_without_a_new_step_is_stalled_after_the_limit() -> None:
    assert not stalled((0, seen()), (59, seen()))
    assert stalled((0, seen()), (30, seen()), (60, seen())) == "stall"


def test_before_the_first_step_twice_the_quoted_time_is_waited_for_it() -> None:
    """Every image is encoded then, which takes hours where there are thousands, and no step is made."""
    preparing = seen(step=None)
    assert not stalled((0, preparing), (60, preparing), (359, preparing))
    assert stalled((0, preparing), (60, preparing), (360, preparing)) == "no-first-step"
    # What is quoted for a small dataset is no reason to be less patient.
    quick = timedelta(minutes=5)
    assert not stalled((0, preparing), (59, preparing), quoted=quick)
    assert stalled((0, preparing), (60, preparing), quoted=quick) == "no-first-step"
    # The first step is one: from here on the next is waited for.
    assert stalled((0, preparing), (300, seen(1)), (360, seen(1))) == "stall"


def test_after_an_interruption_the_step_that_was_made_before_it_is_not_taken_for_one() -> None:
    reclaimed = ((0, seen()), (1, seen(11)), (10, seen(11, "Interrupted")), (20, seen(11)))
    assert not stalled(*reclaimed, (379, seen(11)))
    assert stalled(*reclaimed, (380, seen(11))) == "no-first-step"
    assert stalled(*reclaimed, (300, seen(5)), (360, seen(5))) == "stall"


def test_each_step_and_each_phase_begins_the_time_anew() -> None:
    assert not stalled((0, seen()), (50, seen(11)), (100, seen(11)))
    assert not stalled((0, seen(phase="Downloading")), (50, seen()), (100, seen()))
    # Back at an earlier checkpoint after a spot interruption is a movement too.
    assert not stalled((0, seen()), (50, seen(5)), (100, seen(5)))


@pytest.mark.parametrize("phase", ["Starting", "Pending", "Downloading", "Interrupted", "Uploading"])
def test_what_sagemaker_does_before_and_after_is_not_judged(phase: str) -> None:
    assert not stalled((0, seen(phase=phase)), (600, seen(phase=phase)))


def test_a_training_whose_metrics_cannot_be_read_is_not_called_stalled() -> None:
    blind = seen(step=None, metrics_fresh=False)
    assert not stalled((0, seen()), (90, blind))
    # Nor does blindness count as a movement: what was seen before it counts, and what is seen after it.
    assert not stalled((0, seen()), (50, blind), (90, seen()), (99, seen()))
    assert stalled((0, seen()), (50, blind), (90, seen()), (100, seen())) == "stall"


def test_a_training_of_which_cloudwatch_takes_in_nothing_new_is_not_called_stalled() -> None:
    """Neither from the beginning, nor when it ceases in the middle: the last step that it has stays the last."""
    never = [(minutes, seen(step=None, metrics_fresh=False)) for minutes in range(0, 600, 10)]
    assert not stalled(*never, quoted=timedelta(minutes=5))
    moving = [(minutes, seen(minutes)) for minutes in range(1, 100, 10)]
    frozen = [(minutes, seen(91, metrics_fresh=False)) for minutes in range(101, 600, 10)]
    assert not stalled(*moving, *frozen)
    # The first look that sees again may come a moment before the step that was made meanwhile.
    assert not stalled(*moving, *frozen, (601, seen(91)))


def test_a_step_that_is_no_longer_new_was_made_all_the_same() -> None:
    progress = moved(moved(None, seen(10), NOW), seen(12, metrics_fresh=False), NOW)
    assert progress["step"] == 12


def test_that_progress_cannot_be_seen_is_known_after_the_limit_and_until_it_can() -> None:
    blind, progress = seen(metrics_fresh=False), moved(None, seen(), NOW)
    for minutes, since in ((10, None), (69, None), (70, 10), (90, 10)):
        at = NOW + timedelta(minutes=minutes)
        progress = moved(progress, blind, at)
        expected = since and (NOW + timedelta(minutes=since)).isoformat(timespec="seconds")
        assert long_unseen(progress, at, LIMIT) == expected
    assert long_unseen(moved(progress, seen(), NOW), NOW + timedelta(days=1), LIMIT) is None
    # While an instance is looked for there is nothing to be seen.
    waiting = moved(None, seen(phase="Pending", metrics_fresh=False), NOW)
    assert long_unseen(waiting, NOW + timedelta(days=1), LIMIT) is None


def test_one_that_is_stopping_is_not_stopped_again() -> None:
    assert not stalled((0, seen()), (90, seen(status="Stopping")))


@pytest.mark.parametrize(
    ("before", "step", "passed"),
    [
        (None, 10, None),
        (None, 25, 25),
        (24, 26, 25),
        (25, 26, None),
        (10, 80, 75),
        (50, 49, None),
        (74, 100, 75),
        (10, None, None),
    ],
)
def test_the_highest_milestone_that_was_passed(
    before: int | None, step: int | None, passed: int | None
) -> None:
    progress = None if before is None else {"step": before}
    assert milestone(progress, seen(step), [25, 50, 75]) == passed
