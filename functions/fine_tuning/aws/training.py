"""SageMaker: one pipeline's executions and their training jobs, with their CloudWatch metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import mean
from typing import TYPE_CHECKING, Any

from fine_tuning.aws.sdk import client
from fine_tuning.aws.translation import code_of, translated
from fine_tuning.errors import ConfigurationError, FineTuningError
from fine_tuning.instances import Prices
from fine_tuning.observability import logger
from fine_tuning.observation import (
    CPU_UTILIZATION,
    GPU_UTILIZATION,
    METRICS,
    TERMINAL,
    Observation,
    observe,
    training_job_name,
)

if TYPE_CHECKING:
    from types_boto3_cloudwatch.client import CloudWatchClient
    from types_boto3_sagemaker.client import SageMakerClient
    from types_boto3_sagemaker.type_defs import PipelineExecutionSummaryTypeDef

_NAMESPACE = "/aws/sagemaker/TrainingJobs"
_PERIOD_SECONDS = 60
# Within a minute of a job the last step is the highest and the last ETA the lowest; a loss is noise, so
# averaged.
_STATISTICS = {"step": "Maximum", "total": "Maximum", "loss": "Average", "eta_seconds": "Minimum"}
_OVER = TERMINAL | {None}
# DescribeTrainingJob refuses an unknown name with a ValidationException ("Requested resource not found.").
_NO_JOB = frozenset({"ResourceNotFound", "ResourceNotFoundException", "ValidationException"})


@dataclass(frozen=True)
class Metrics:
    """The latest value of each, of the GPUs' use the mean; `newest` is the time of the newest, if there is any."""

    latest: Mapping[str, float] = field(default_factory=dict)
    newest: datetime | None = None


class Training:
    """`clock` gives the time that an observation is made at; `prices` what it has cost so far.

    Prices are asked for where money is told and nowhere else: a job is looked at and stopped without them.
    """

    def __init__(self, clock: Callable[[], datetime], prices: Callable[[], Prices]) -> None:
        self._clock = clock
        self._prices = prices

    @property
    def _sagemaker(self) -> SageMakerClient:
        sagemaker: SageMakerClient = client("sagemaker")
        return sagemaker

    def observe(self, pipeline_execution_arn: str) -> Observation:
        """One look at the execution, its steps, its job and the job's latest metrics."""
        with translated(f"look at {pipeline_execution_arn}"):
            execution = self._sagemaker.describe_pipeline_execution(
                PipelineExecutionArn=pipeline_execution_arn
            )
            steps = self._steps(pipeline_execution_arn)
        name = training_job_name(steps)
        job = self._job(name) if name else None
        metrics = self._metrics(name, job) if name and job else Metrics()
        known = self._known_prices()
        return observe(dict(execution), steps, job, metrics.latest, self._clock(), known, metrics.newest)

    def _known_prices(self) -> Prices | None:
        """None where the stack's are wrong."""
        try:
            return self._prices()
        except ConfigurationError as problem:
            logger.warning("The training is shown without its cost: %s", problem)
            return None

    def find(self, pipeline_name: str, display_name: str) -> str | None:
        """The ARN of the pipeline's newest execution with that display name, among its newest 500."""
        with translated(f"find {display_name} among the executions of {pipeline_name}"):
            named = (
                execution["PipelineExecutionArn"]
                for execution in self._newest(pipeline_name)
                if execution.get("PipelineExecutionDisplayName") == display_name
            )
            return next(named, None)

    def executing(self, pipeline_name: str) -> list[tuple[str, str]]:
        """ARN and display name of the pipeline's executions that run, among its newest 500."""
        with translated(f"list the executions of {pipeline_name}"):
            return [
                (execution["PipelineExecutionArn"], execution.get("PipelineExecutionDisplayName", ""))
                for execution in self._newest(pipeline_name)
                if execution.get("PipelineExecutionStatus") == "Executing"
            ]

    def _newest(self, pipeline_name: str) -> Iterator[PipelineExecutionSummaryTypeDef]:
        pages = self._sagemaker.get_paginator("list_pipeline_executions").paginate(
            PipelineName=pipeline_name,
            SortBy="CreationTime",
            SortOrder="Descending",
            PaginationConfig={"PageSize": 100, "MaxItems": 500},
        )
        return (execution for page in pages for execution in page["PipelineExecutionSummaries"])

    def stop(self, pipeline_execution_arn: str) -> bool:
        """Asks SageMaker to stop.

        False where there is nothing left to stop. Safe to repeat: the token is the same.
        """
        token = hashlib.sha256(f"stop {pipeline_execution_arn}".encode()).hexdigest()
        with translated(f"stop {pipeline_execution_arn}"):
            if self._status(pipeline_execution_arn) in _OVER:
                return False
            try:
                self._sagemaker.stop_pipeline_execution(
                    PipelineExecutionArn=pipeline_execution_arn, ClientRequestToken=token
                )
            except self._sagemaker.exceptions.ClientError:
                # It may have ended, or been stopped, meanwhile. Otherwise a job goes on that is paid for.
                status = self._status(pipeline_execution_arn)
                if status != "Stopping" and status not in _OVER:
                    raise
                return status == "Stopping"
        return True

    def _status(self, pipeline_execution_arn: str) -> str | None:
        """None where there is no such execution."""
        try:
            execution = self._sagemaker.describe_pipeline_execution(
                PipelineExecutionArn=pipeline_execution_arn
            )
        except self._sagemaker.exceptions.ResourceNotFound:
            return None
        return execution["PipelineExecutionStatus"]

    def _steps(self, pipeline_execution_arn: str) -> list[dict[str, Any]]:
        pages = self._sagemaker.get_paginator("list_pipeline_execution_steps").paginate(
            PipelineExecutionArn=pipeline_execution_arn
        )
        return [dict(step) for page in pages for step in page.get("PipelineExecutionSteps", ())]

    def _job(self, name: str) -> dict[str, Any] | None:
        with translated(f"look at the training job {name}"):
            try:
                return dict(self._sagemaker.describe_training_job(TrainingJobName=name))
            except self._sagemaker.exceptions.ClientError as cause:
                if code_of(cause) not in _NO_JOB:
                    raise
                return None

    def _metrics(self, job_name: str, job: dict[str, Any]) -> Metrics:
        """In one request; none where they cannot be read.

        How a training ended must be told all the same.
        """
        try:
            return self._latest(job_name, job)
        except FineTuningError as problem:
            logger.warning("The training is shown without its metrics: %s", problem)
            return Metrics()

    def _latest(self, job_name: str, job: dict[str, Any]) -> Metrics:
        cloudwatch: CloudWatchClient = client("cloudwatch")
        now = self._clock()
        start = job.get("TrainingStartTime") or job.get("CreationTime") or now - timedelta(hours=1)
        queries: list[Any] = [
            _query(name, metric, _STATISTICS[name], "TrainingJobName", job_name)
            for name, metric in METRICS.items()
        ]
        for name, metric in (("gpu", GPU_UTILIZATION), ("cpu", CPU_UTILIZATION)):
            queries.append(_query(name, metric, "Average", "Host", f"{job_name}/algo-1"))
        with translated(f"read the metrics of {job_name}"):
            answer = cloudwatch.get_metric_data(
                MetricDataQueries=queries,
                StartTime=start - timedelta(seconds=_PERIOD_SECONDS),
                EndTime=now + timedelta(seconds=_PERIOD_SECONDS),
                ScanBy="TimestampDescending",
            )
        # By their times, because the embedded AWS has them oldest first whatever was asked.
        values = {
            r["Id"]: [
                value for _, value in sorted(zip(r["Timestamps"], r["Values"], strict=True), reverse=True)
            ]
            for r in answer["MetricDataResults"]
            if r.get("Values")
        }
        latest = {METRICS[name]: values[name][0] for name in METRICS if name in values}
        if "gpu" in values:
            latest[GPU_UTILIZATION] = mean(values["gpu"])
        times = (time for result in answer["MetricDataResults"] for time in result.get("Timestamps", ()))
        return Metrics(latest, max(times, default=None))


def _query(name: str, metric: str, statistic: str, dimension: str, value: str) -> dict[str, Any]:
    dimensions = [{"Name": dimension, "Value": value}]
    known = {"Namespace": _NAMESPACE, "MetricName": metric, "Dimensions": dimensions}
    return {"Id": name, "MetricStat": {"Metric": known, "Period": _PERIOD_SECONDS, "Stat": statistic}}
