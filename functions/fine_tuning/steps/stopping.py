"""Stops a GPU job that nobody waits for any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fine_tuning import statuses
from fine_tuning.aws.executions import Ending, ending
from fine_tuning.aws.mail import Mail
from fine_tuning.aws.objects import Objects
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.aws.training import Training
from fine_tuning.steps.telling import tell_from_record

_NOTHING: dict[str, Any] = {"stopped": False, "run_id": None, "message_id": None}


def stop(run_id: str, arn: str, pipeline_name: str, training: Training) -> dict[str, Any]:
    """On behalf of the flow itself, which tells its user afterwards.

    `arn` is empty where SageMaker's answer to the start was lost: there may be an execution all the same.
    """
    found = arn or training.find(pipeline_name, run_id)
    return {"stopped": training.stop(found) if found else False, "run_id": run_id, "message_id": None}


def stop_ended_execution(
    event: dict[str, Any],
    pipeline_name: str,
    objects: Objects,
    records: RunRecords,
    training: Training,
    mail: Mail,
) -> dict[str, Any]:
    """On Step Functions' event of an execution that was aborted, timed out or failed."""
    detail = event["detail"]
    how = ending(detail["status"], detail.get("cause"))
    if how is None:
        return _NOTHING
    return end(detail["name"], how, pipeline_name, objects, records, training, mail)


def end(
    run_id: str,
    how: Ending,
    pipeline_name: str,
    objects: Objects,
    records: RunRecords,
    training: Training,
    mail: Mail,
) -> dict[str, Any]:
    """Ends a run whose flow is over: stops its job; tells its user unless the flow did. Safe to repeat."""
    record = records.get(run_id)
    if record is None:
        return _NOTHING
    arn = _pipeline_execution_of(record, pipeline_name, training)
    has_stopped = training.stop(arn) if arn else False
    # A final status proves nothing: the mail goes out after it. Only a mail proves that there is nothing left to tell.
    has_told = any(one["kind"] in statuses.OF_MAIL for one in record.get("notifications", []))
    message_id = None if has_told else tell_from_record(record, how, objects, records, mail)
    return {"stopped": has_stopped, "run_id": run_id, "message_id": message_id}


def _pipeline_execution_of(record: Mapping[str, Any], pipeline_name: str, training: Training) -> str | None:
    """The ARN of the run's pipeline execution.

    A flow that ended right after it had started one left no ARN behind, but SageMaker knows the run's name.
    """
    if arn := record.get("pipeline_execution_arn"):
        return str(arn)
    may_have_one = any(change["status"] == "STARTING" for change in record["history"])
    return training.find(pipeline_name, record["run_id"]) if may_have_one else None
