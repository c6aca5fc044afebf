"""Looks at a training.

When the flow begins to wait, when SageMaker says that something changed, when time is up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fine_tuning import pipeline_execution
from fine_tuning.aws.executions import answer_token
from fine_tuning.aws.mail import Mail
from fine_tuning.aws.objects import Objects
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.aws.training import Training
from fine_tuning.deadline import overdue
from fine_tuning.observation import Observation
from fine_tuning.progress import Progress, long_unseen, milestone, moved, stall
from fine_tuning.run import Run
from fine_tuning.settings import Settings
from fine_tuning.steps.telling import tell_in_passing


@dataclass(frozen=True)
class Watched:
    """What a look saw.

    `milestone` in percent where one was passed; `unseen_since`, ISO 8601, where progress cannot be seen for long.
    """

    run: Run
    observation: Observation
    milestone: int | None = None
    unseen_since: str | None = None


def watch(
    run: Run,
    pipeline_execution_arn: str,
    token: str,
    deadline: datetime,
    rung: Mapping[str, Any],
    attempt: int,
    now: datetime,
    settings: Settings,
    records: RunRecords,
    training: Training,
) -> Watched:
    """Stores the token, then looks once: an event that came before the token was stored is not missed.

    When no instance came in time, past the deadline, or when no step was made for too long, the pipeline execution is
    stopped; its end then answers the token. A look that comes so late that a later `attempt` is watched leaves the
    record to that one.

    Args:
        deadline: of deadline.py.
        rung: what is trained on, as planned.
        attempt: number of the start of the pipeline.
    """
    kept = {"task_token": token, **pipeline_execution.attributes(pipeline_execution_arn)}
    records.advance(run.run_id, "TRAINING", kept, attempt)
    record = {**records.find(run.run_id), **kept}
    watched, progress = _look(record, now, settings, records, training)
    limit = timedelta(seconds=settings.stall_seconds)
    quoted = timedelta(seconds=rung["fixed_seconds"])
    seen = watched.observation
    if why := overdue(seen, now, deadline, rung) or stall(progress, seen, now, limit, quoted):
        _stop(why, run, pipeline_execution_arn, now, records, training)
    return watched


def observe(
    event: dict[str, Any], now: datetime, settings: Settings, records: RunRecords, training: Training
) -> Watched | None:
    """Looks at the run of an event.

    None for a pipeline execution that no run knows, and after the run's end.
    """
    execution_id = pipeline_execution.id_of_event(event)
    run_id = records.run_id_of_pipeline_execution(execution_id) if execution_id else None
    record = records.get(run_id) if run_id else None
    if record is None or record["status"] != "TRAINING":
        return None
    return _look(record, now, settings, records, training)[0]


def tell_progress(watched: Watched, objects: Objects, records: RunRecords, mail: Mail) -> None:
    """Mails a milestone that was passed, and once a run that its progress cannot be seen."""
    observation = watched.observation.as_document()
    if watched.milestone is not None:
        facts = {"observation": observation, "milestone": watched.milestone}
        tell_in_passing(watched.run, "progress", facts, objects, records, mail)
    if watched.unseen_since is not None:
        facts = {"observation": observation, "unseen_since": watched.unseen_since}
        tell_in_passing(watched.run, "progress", facts, objects, records, mail)


def _look(
    record: Mapping[str, Any], now: datetime, settings: Settings, records: RunRecords, training: Training
) -> tuple[Watched, Progress]:
    run, token, arn = Run.from_payload(record), record.get("task_token"), record["pipeline_execution_arn"]
    observation = training.observe(arn)
    before = record.get("progress")
    progress = moved(before, observation, now)
    seen = {"observation": observation.as_document(), "progress": progress}
    records.note(run.run_id, seen, pipeline_execution_arn=arn)
    if observation.terminal and token:
        answer_token(token, observation.as_document())
        records.forget_token(run.run_id, token)
    passed = milestone(before, observation, settings.progress_milestones)
    unseen_since = long_unseen(progress, now, timedelta(seconds=settings.stall_seconds))
    return Watched(run, observation, passed, unseen_since), progress


def _stop(
    by: str, run: Run, pipeline_execution_arn: str, now: datetime, records: RunRecords, training: Training
) -> None:
    """Noted before, so that the mail of the end can say who stopped the training."""
    of = {"at": now.isoformat(timespec="seconds"), "pipeline_execution_arn": pipeline_execution_arn}
    requested = {"stop_requested": {"by": by, **of}}
    records.note(run.run_id, requested, pipeline_execution_arn=pipeline_execution_arn)
    training.stop(pipeline_execution_arn)
