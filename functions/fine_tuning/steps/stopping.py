"""Stops a GPU job that nobody waits for any more."""

from __future__ import annotations

from typing import Any

from fine_tuning import failure, statuses
from fine_tuning.aws.mail import Mail
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.aws.training import Training
from fine_tuning.run import Run
from fine_tuning.steps.telling import tell_ended_execution

# How the flow's execution ended → what the run is then.
_STATUS = {"ABORTED": "STOPPED", "TIMED_OUT": "FAILED", "FAILED": "FAILED"}


def stop(pipeline_execution_arn: str, training: Training) -> dict[str, Any]:
    """On behalf of the flow itself, which tells its user afterwards."""
    return {"stopped": training.stop(pipeline_execution_arn), "run_id": None, "message_id": None}


def stop_ended_execution(
    event: dict[str, Any], records: RunRecords, training: Training, mail: Mail
) -> dict[str, Any]:
    """On an execution that was aborted, timed out or failed.

    Stops its job; tells its user unless the flow did.
    """
    detail = event["detail"]
    record = records.get(detail["name"])
    if record is None or detail["status"] not in _STATUS:
        return {"stopped": False, "run_id": None, "message_id": None}
    arn = record.get("pipeline_execution_arn")
    has_stopped = training.stop(arn) if arn else False
    status = _STATUS[detail["status"]]
    # A flow that came to its own end has told its user. A repeated event finds the status that the first one
    # set, but perhaps no mail, so only a mail proves that there is nothing left to tell.
    has_told = any(one["kind"] in statuses.OF_MAIL for one in record.get("notifications", []))
    if has_told or (statuses.is_final(record["status"]) and record["status"] != status):
        return {"stopped": has_stopped, "run_id": record["run_id"], "message_id": None}
    why = failure.of_ended_execution(detail["status"], detail.get("cause"))
    message_id = tell_ended_execution(Run.from_payload(record), status, why, records, mail)
    return {"stopped": has_stopped, "run_id": record["run_id"], "message_id": message_id}
