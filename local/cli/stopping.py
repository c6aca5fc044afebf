"""`./dev stop RUN`: ends a run's flow; the deployment then stops its GPU job and mails."""

import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from local.cli import records, refusal
from local.cli.account import Account
from local.cli.failure import CommandError
from local.cli.records import FINAL, Record

SECONDS_TO_END = 120.0
CAUSE = "Stopped with ./dev stop."
RETRIED = ("FAILED", "STOPPED")


def run(account: Account, outputs: Mapping[str, str], run_id: str) -> int:
    """Exit code 0 when the run is over and no GPU job is left running."""
    table = records.table_of(account, outputs)
    record = records.find(table, run_id)
    run_id = str(record["run_id"])
    if record["status"] in FINAL:
        print(f"run {run_id} is over already: {record['status']}")
    else:
        account.client("stepfunctions").stop_execution(executionArn=record["execution_arn"], cause=CAUSE)
        with refusal.told(
            "Its flow is stopped, and the deployment stops its GPU job: ./dev runs shows its end."
        ):
            record = _ended(table, run_id)
        print(f"run {run_id}: {record['status']}")
    if is_training(account.client("sagemaker"), record):
        print("its GPU job was still running and is being stopped")
    if record["status"] in RETRIED:
        print(f"to go on from its last checkpoint: ./dev retry {run_id}")
    return 0


def _ended(table: Any, run_id: str) -> Record:
    """The record with its end, which the rule on aborted executions writes."""
    deadline = time.monotonic() + SECONDS_TO_END
    while time.monotonic() < deadline:
        record = records.find(table, run_id)
        if record["status"] in FINAL:
            return record
        time.sleep(0.5)
    raise CommandError(
        f"the flow of {run_id} is stopped, but its record still says {record['status']} after {SECONDS_TO_END:.0f} s. "
        "The event of its end may be lost; within 15 minutes the reconcile stops its GPU job. Look again: ./dev runs"
    )


def is_training(sagemaker: Any, record: Record) -> bool:
    """Whether the run's pipeline execution went on; it is asked to stop then. Normally the rule has done so."""
    arn = record.get("pipeline_execution_arn")
    if not arn:
        return False
    try:
        status = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"]
        if status != "Executing":
            return False
        sagemaker.stop_pipeline_execution(
            PipelineExecutionArn=arn, ClientRequestToken=f"stop-{record['run_id']}".ljust(32, "-")
        )
    except ClientError as error:
        raise CommandError(
            f"the GPU job of {record['run_id']} could not be looked at or stopped: {error}"
        ) from error
    return True
