"""Compares the runs in flight with their flows: events are best effort, a GPU job is paid for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from fine_tuning.aws.executions import ending_of
from fine_tuning.aws.mail import Mail
from fine_tuning.aws.objects import Objects
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.aws.slots import SlotItem
from fine_tuning.aws.training import Training
from fine_tuning.errors import FineTuningError, RunsNotReconciledError
from fine_tuning.measurements import is_silent, of_silence
from fine_tuning.observability import logger, publish
from fine_tuning.statuses import is_final
from fine_tuning.steps.queueing import settle
from fine_tuning.steps.stopping import end

# No flow runs longer than 30 days (statemachine/fine_tuning.asl.yaml); the rest is for what was missed then.
_OLDEST = timedelta(days=35)
# A record is written before its execution is started.
_YOUNGEST = timedelta(minutes=5)


def reconcile(
    now: datetime,
    pipeline_name: str,
    objects: Objects,
    records: RunRecords,
    slots: SlotItem,
    training: Training,
    mail: Mail,
) -> dict[str, Any]:
    """Ends every run in flight whose flow is over, as the event of that end would have; tells what nobody told.

    Then hands on every slot of a run that is over, and stops every job of one.
    Raises RunsNotReconciledError for those that could not be compared, after all the others.
    """
    runs = records.in_flight(now - _OLDEST, now - _YOUNGEST)
    untold = records.untold(now - _OLDEST, now - _YOUNGEST)
    ended: list[str] = []
    problems: dict[str, Exception] = {}
    for record in [*runs, *untold]:
        try:
            if _ends(record, pipeline_name, objects, records, training, mail):
                logger.warning("The flow of this run is over, so it was ended", run_id=record["run_id"])
                ended.append(record["run_id"])
        except Exception as problem:  # one run must not hide the others; all are raised together below
            problems[record["run_id"]] = problem
    mends = {
        "the slots": partial(settle, records, slots),
        "the pipeline executions": partial(_stop_orphans, pipeline_name, records, training),
    }
    for what, mend in mends.items():
        try:
            mend()
        except Exception as problem:  # as above
            problems[what] = problem
    silent = [record["run_id"] for record in runs if record["run_id"] not in ended and is_silent(record, now)]
    for run_id in silent:
        logger.warning("This run trains for much longer than it was quoted", run_id=run_id)
    publish(of_silence(len(silent)))
    if problems:
        raise _not_reconciled(problems, len(runs) + len(untold)) from next(iter(problems.values()))
    return {"looked_at": len(runs) + len(untold), "ended": ended, "silent": silent}


def _ends(
    record: Mapping[str, Any],
    pipeline_name: str,
    objects: Objects,
    records: RunRecords,
    training: Training,
    mail: Mail,
) -> bool:
    ending = ending_of(record["execution_arn"])
    if ending is None:
        return False
    end(record["run_id"], ending, pipeline_name, objects, records, training, mail)
    return True


def _stop_orphans(pipeline_name: str, records: RunRecords, training: Training) -> None:
    """A flow that was aborted while it started its pipeline execution could not be told of that one."""
    for arn, display_name in training.executing(pipeline_name):
        record = records.get(display_name)  # one that was started by hand has the name of no run
        if record is not None and is_final(record["status"]):
            logger.warning("A job of this run went on after its end, so it is stopped", run_id=display_name)
            training.stop(arn)


def _not_reconciled(problems: Mapping[str, Exception], looked_at: int) -> RunsNotReconciledError:
    """Of all problems, with the remedy of the first."""
    first = next(iter(problems.values()))
    causes = "; ".join(
        f"{run_id}: {problem.cause if isinstance(problem, FineTuningError) else repr(problem)}"
        for run_id, problem in problems.items()
    )
    remedy = first.remedy if isinstance(first, FineTuningError) else "Mend the code."
    cause = f"{len(problems)} of {looked_at} runs could not be compared with their flows ({causes})."
    return RunsNotReconciledError(cause, remedy)
