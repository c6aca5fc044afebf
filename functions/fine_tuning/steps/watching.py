"""Looks at a training.

When the flow begins to wait, when SageMaker says that something changed, when time is up.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fine_tuning import pipeline_execution
from fine_tuning.aws.executions import answer_token
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.aws.training import Training
from fine_tuning.observability import about
from fine_tuning.observation import Observation
from fine_tuning.run import Run


def watch(
    run: Run,
    pipeline_execution_arn: str,
    token: str,
    deadline: datetime,
    now: datetime,
    records: RunRecords,
    training: Training,
) -> Observation:
    """Stores the token, then looks once: an event that came before the token was stored is not missed.

    Past the deadline the pipeline execution is stopped; its end then answers the token.
    """
    kept = {"task_token": token, **pipeline_execution.attributes(pipeline_execution_arn)}
    records.advance(run.run_id, "TRAINING", kept)
    if now >= deadline:
        training.stop(pipeline_execution_arn)
    return _look(run.run_id, pipeline_execution_arn, token, records, training)


def observe(event: dict[str, Any], records: RunRecords, training: Training) -> Observation | None:
    """Looks at the run of an event.

    None for a pipeline execution that no run knows, and after the run's end.
    """
    execution_id = pipeline_execution.id_of_event(event)
    run_id = records.run_id_of_pipeline_execution(execution_id) if execution_id else None
    if run_id:
        about(run_id=run_id)
    record = records.get(run_id) if run_id else None
    if record is None or record["status"] != "TRAINING":
        return None
    return _look(
        record["run_id"], record["pipeline_execution_arn"], record.get("task_token"), records, training
    )


def _look(run_id: str, arn: str, token: str | None, records: RunRecords, training: Training) -> Observation:
    observation = training.observe(arn)
    records.note(run_id, {"observation": observation.as_document()})
    if observation.terminal and token:
        answer_token(token, observation.as_document())
        records.forget_token(run_id, token)
    return observation
