"""Runs the same drop once more: a run of its own, with the checkpoints of the first."""

from __future__ import annotations

from fine_tuning.aws.executions import Executions
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.errors import NotRetriableError
from fine_tuning.run import Run
from fine_tuning.statuses import is_in_flight

_RETRIABLE = frozenset({"FAILED", "STOPPED"})


def retry(run_id: str, records: RunRecords, executions: Executions) -> dict[str, str]:
    """The new run `<first run>-r2`, `-r3`…; asked for twice at a time it is one run.

    Raises NotRetriableError where the newest run of that drop is under way, has a model, or was not accepted.
    """
    asked = Run.from_payload(records.find(run_id))
    first = asked.first_run_id
    newest, number = records.find(first), 2
    while (record := records.get(asked.retry(number).run_id)) is not None:
        newest, number = record, number + 1
    status = newest["status"]
    if status == "RECEIVED" and newest.get("retries"):
        # Whoever wrote that record may have ended before it started the flow; a second start is none.
        return _start(Run.from_payload(newest), executions)
    if status not in _RETRIABLE:
        raise NotRetriableError(*_why_not(newest["run_id"], status))
    run = asked.retry(number)
    records.create(run, executions.arn_of(run.run_id))
    return _start(run, executions)


def _start(run: Run, executions: Executions) -> dict[str, str]:
    executions.start(run.run_id, run.as_payload())
    return {"status": "RECEIVED", "run_id": run.run_id, "retries": run.retries or ""}


def _why_not(run_id: str, status: str) -> tuple[str, str]:
    if is_in_flight(status):
        return (
            f"The run {run_id} is under way ({status}).",
            f"Wait for its end, or ./dev stop {run_id} first.",
        )
    if status == "REJECTED":
        return f"The dataset of the run {run_id} was not accepted.", "Correct the files and drop them again."
    return (
        f"The run {run_id} needs no retry ({status}).",
        'To train once more, put "force": true into manifest.json and drop it again.',
    )
