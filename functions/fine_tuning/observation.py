"""What SageMaker says about a pipeline execution and its training job, as one flat document.

Sources: DescribePipelineExecution, ListPipelineExecutionSteps, DescribeTrainingJob and CloudWatch's metrics of
the namespace /aws/sagemaker/TrainingJobs. Pure: the answers come in as dictionaries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from fine_tuning import instances
from fine_tuning.instances import Prices

TERMINAL = frozenset({"Stopped", "Failed", "Succeeded", "CompletedWithFailures"})
_UNDER_WAY = frozenset({"Executing", "Stopping"})
# Secondary statuses of a training job that was ended before its own end, whatever its pipeline makes of that.
_STOPPED_JOB = frozenset({"Stopped", "MaxRuntimeExceeded", "MaxWaitTimeExceeded"})
# Secondary statuses of a job that waits for an instance.
WITHOUT_INSTANCE = frozenset({"Starting", "Pending", "LaunchingMLInstances", "Interrupted"})
METRICS = {
    "step": "train:step",
    "total": "train:total",
    "loss": "train:loss",
    "eta_seconds": "train:eta_seconds",
}
_NEARLY_ALL = 0.95  # of the steps
# SageMaker's own, over the job so far: percent of one GPU, added up over those of the instance.
GPU_UTILIZATION = "GPUUtilization"
# SageMaker's own of every instance, once a minute, whatever the container does: where the newest of all metrics is
# older than a few minutes, CloudWatch takes in nothing of this job, and a step that is missing may have been made.
CPU_UTILIZATION = "CPUUtilization"
_FRESH = timedelta(minutes=5)
# SageMaker puts this before what the container wrote to /opt/ml/output/failure.
_CONTAINER_FAILURE = re.compile(r"^AlgorithmError:\s*", re.IGNORECASE)
_EXIT_CODE = re.compile(r",?\s*exit code:\s*\d+\s*$", re.IGNORECASE)


Outcome = Literal["running", "succeeded", "failed", "stopped", "unknown"]


@dataclass(frozen=True)
class Observation:
    """One look.

    Numbers are None when unknown; `seconds` are billable ones, `cost_usd` is at the on-demand price;
    `gpu_utilization` is the mean of the job's GPUs so far, in percent. `metrics_fresh`: whether CloudWatch has
    any of the job that is new, so that what it does not show has not happened. `training_started_at` is when the job
    got its instance, ISO 8601. A status that this version does not know is
    terminal, with the outcome `unknown`: a person has to look.
    """

    status: str
    terminal: bool
    outcome: Outcome
    training_job: str | None
    secondary_status: str | None
    step: int | None
    total: int | None
    loss: float | None
    eta_seconds: float | None
    instance_type: str | None
    spot: bool | None
    seconds: int | None
    cost_usd: float | None
    reason: str | None
    artifact: str | None
    gpu_utilization: float | None
    metrics_fresh: bool
    training_started_at: str | None
    observed_at: str

    def as_document(self) -> dict[str, Any]:
        return asdict(self)


def ended_early(observation: Mapping[str, Any]) -> bool:
    """Whether a training ended of its own accord long before its last step (the manifest's validation_patience).

    The metrics of its last lines may be missing.
    """
    step, total = observation.get("step"), observation.get("total")
    return step is not None and total is not None and step < _NEARLY_ALL * total


def training_job_name(steps: Sequence[Mapping[str, Any]]) -> str | None:
    """The name of the training job that ListPipelineExecutionSteps mentions; the latest started one."""
    started = [step for step in steps if step.get("Metadata", {}).get("TrainingJob", {}).get("Arn")]
    if not started:
        return None
    latest = max(started, key=lambda step: str(step.get("StartTime", "")))
    arn: str = latest["Metadata"]["TrainingJob"]["Arn"]
    return arn.rpartition("/")[2]


def observe(
    execution: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    job: Mapping[str, Any] | None,
    metrics: Mapping[str, float],
    now: datetime,
    prices: Prices | None,
    metrics_at: datetime | None = None,
) -> Observation:
    """The observation.

    Args:
        execution: DescribePipelineExecution.
        steps: PipelineExecutionSteps, all pages.
        job: DescribeTrainingJob, None before there is a job.
        metrics: metric name → latest value, of the GPUs' use the mean, as far as there are any.
        prices: None where they could not be read: the cost is unknown then.
        metrics_at: the time of the newest metric; None where there is none.
    """
    status: str = execution["PipelineExecutionStatus"]
    job = job or {}
    seconds = job.get("BillableTimeInSeconds", job.get("TrainingTimeInSeconds"))
    began: datetime | None = job.get("TrainingStartTime")
    instance_type = job.get("ResourceConfig", {}).get("InstanceType")
    finals = {m["MetricName"]: m["Value"] for m in job.get("FinalMetricDataList", ())}
    values = {name: _finite(metrics.get(metric, finals.get(metric))) for name, metric in METRICS.items()}
    price = prices.on_demand(instance_type) if prices and instance_type else None
    return Observation(
        status=status,
        terminal=status not in _UNDER_WAY,
        outcome=_outcome(status, job.get("SecondaryStatus")),
        training_job=job.get("TrainingJobName"),
        secondary_status=job.get("SecondaryStatus"),
        step=_whole(values["step"]),
        total=_whole(values["total"]),
        loss=values["loss"],
        eta_seconds=values["eta_seconds"],
        instance_type=instance_type,
        spot=job.get("EnableManagedSpotTraining"),
        seconds=seconds,
        cost_usd=None if price is None or seconds is None else round(seconds / 3600 * price, 2),
        reason=_reason(execution, steps, job),
        artifact=job.get("ModelArtifacts", {}).get("S3ModelArtifacts") or None,
        gpu_utilization=_of_each_gpu(metrics.get(GPU_UTILIZATION), instance_type),
        metrics_fresh=metrics_at is not None and now - metrics_at < _FRESH,
        training_started_at=began.isoformat(timespec="seconds") if began else None,
        observed_at=now.isoformat(timespec="seconds"),
    )


def _outcome(status: str, secondary_status: str | None) -> Outcome:
    """Of the execution's status, and of the job's where that knows better."""
    if status in _UNDER_WAY:
        return "running"
    if status not in TERMINAL:
        return "unknown"
    if status == "Stopped" or secondary_status in _STOPPED_JOB:
        return "stopped"
    return "succeeded" if status == "Succeeded" else "failed"


def _reason(
    execution: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], job: Mapping[str, Any]
) -> str | None:
    """The most exact reason: the container's own words, then the step's, then the execution's."""
    candidates = [job.get("FailureReason"), *(step.get("FailureReason") for step in steps)]
    candidates.append(execution.get("FailureReason"))
    reason = next((str(candidate) for candidate in candidates if candidate), None)
    return _EXIT_CODE.sub("", _CONTAINER_FAILURE.sub("", reason)) if reason else None


def _of_each_gpu(utilization: float | None, instance_type: str | None) -> float | None:
    return None if utilization is None else round(utilization / instances.gpus(instance_type or ""), 1)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
