"""Stopping ends the flow and the GPU job, whoever does it; a retry goes on from the last checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from local.cli import retrying, stopping
from local.cli.failure import CommandError
from tests.end_to_end.conftest import Deployer
from tests.end_to_end.journey import Stack, drop_long_run, eventually


def job_status(stack: Stack, run_id: str) -> str:
    (job,) = stack.training_jobs(run_id)
    return str(job["TrainingJobStatus"])


def pipeline_status(stack: Stack, record: dict[str, Any]) -> str:
    described = stack.client("sagemaker").describe_pipeline_execution(
        PipelineExecutionArn=record["pipeline_execution_arn"]
    )
    return str(described["PipelineExecutionStatus"])


def test_a_stopped_run_goes_on_from_its_last_checkpoint(stack: Stack, deployer: Deployer) -> None:
    prefix, record = drop_long_run(stack, "stop-retry", steps=100)
    run_id = record["run_id"]
    # A stop is a SIGTERM, at which the trainer keeps the state of its present step.
    (job,) = stack.training_jobs(run_id)
    log = stack.home / "logs" / "training" / f"{job['TrainingJobName']}.log"
    eventually(lambda: log.exists() and "progress step=15 " in log.read_text(), "the 15th step")
    # When it is stopped
    assert stopping.run(deployer.account, stack.outputs, run_id) == 0
    # Then its job and its pipeline execution are, and the mail says how to go on
    eventually(lambda: job_status(stack, run_id) == "Stopped", "a stopped job")
    eventually(lambda: pipeline_status(stack, record) == "Stopped", "a stopped pipeline execution")
    assert stack.records(prefix)[-1]["status"] == "STOPPED"
    assert f"./dev retry {run_id}" in stack.mail(run_id, "stopped")
    # And a retry makes the missing steps only
    assert retrying.run(deployer.account, stack.outputs, run_id, follow=True) == 0
    retried = stack.records(prefix)[-1]
    assert (retried["run_id"], retried["status"]) == (f"{run_id}-r2", "COMPLETED")
    (job,) = stack.training_jobs(retried["run_id"])
    log = stack.home / "logs" / "training" / f"{job['TrainingJobName']}.log"
    first = next(line for line in log.read_text().splitlines() if line.startswith("progress step="))
    assert int(first.split("=")[1].split()[0]) > 10, first
    # What completed is not run once more
    with pytest.raises(CommandError, match="needs no retry"):
        retrying.run(deployer.account, stack.outputs, run_id, follow=False)
