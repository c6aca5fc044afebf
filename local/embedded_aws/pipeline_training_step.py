"""The Training step of a pipeline: its job, its permissions, its retries, its stop."""

import random
import string
import time
from collections.abc import Iterable, Mapping
from typing import Any

from local.embedded_aws.iam import role_denial
from local.embedded_aws.pipeline_definition import Step
from local.embedded_aws.pipeline_execution import PipelineExecution, StepFailedError, StepStoppedError
from local.embedded_aws.registration import arn
from local.embedded_aws.request_validation import RequestError
from local.embedded_aws.training_job import TrainingJob
from local.embedded_aws.training_jobs import start_training_job

POLL_SECONDS = 0.1
NAME_LENGTH = 63

EXCEPTION_TYPES = {
    "InternalServerError": "SageMaker.JOB_INTERNAL_ERROR",
    "CapacityError": "SageMaker.CAPACITY_ERROR",
    "ResourceLimitExceeded": "SageMaker.RESOURCE_LIMIT",
    "ThrottlingException": "Step.THROTTLING",
}
"""What a failure reason or an error code begins with → what retry policies call it."""


def run_training(execution: PipelineExecution, step: Step) -> list[Step]:
    """Create the job and await its end, again as the step's retry policies say."""
    began, attempts = time.monotonic(), 0
    while True:
        try:
            _attempt(execution, step)
            return []
        except StepFailedError as error:
            policy = retry_policy(step.get("RetryPolicies") or [], error.exception_type)
            seconds = time.monotonic() - began
            if policy is None or not may_retry(policy, attempts, seconds):
                raise
            delay = policy.get("IntervalSeconds", 1) * policy.get("BackoffRate", 2.0) ** attempts
            attempts += 1
            execution.steps[step["Name"]]["AttemptCount"] = attempts
            if execution.stop_requested.wait(delay):
                raise StepStoppedError from error


def retry_policy(
    policies: Iterable[Mapping[str, Any]], exception_type: str | None
) -> Mapping[str, Any] | None:
    """The first policy that names the failure."""
    return next((policy for policy in policies if exception_type in policy["ExceptionType"]), None)


def may_retry(policy: Mapping[str, Any], attempts: int, seconds: float) -> bool:
    """Whether a policy allows one more attempt after `attempts` retries and `seconds` since the first."""
    if "MaxAttempts" in policy:
        return attempts < int(policy["MaxAttempts"])
    return seconds < float(policy.get("ExpireAfterMin", 0)) * 60


def job_name(execution_identifier: str, step_name: str) -> str:
    """`pipelines-<execution>-<step>-<10 random>`, as SageMaker names the jobs of a pipeline."""
    suffix = "".join(random.choices(string.ascii_letters + string.digits, k=10))
    front = f"pipelines-{execution_identifier}-{step_name}"[: NAME_LENGTH - 1 - len(suffix)].rstrip("-")
    return f"{front}-{suffix}"


def _attempt(execution: PipelineExecution, step: Step) -> None:
    name = job_name(execution.identifier, step["Name"])
    request = {**execution.values.resolve(step.get("Arguments") or {}), "TrainingJobName": name}
    _check_permissions(execution.role_arn, request)
    try:
        job = start_training_job(request)
    except RequestError as error:
        reason = f"ClientError: Failed to invoke sagemaker:CreateTrainingJob. Error Details: {error}"
        raise StepFailedError(reason, EXCEPTION_TYPES.get(error.code)) from error
    execution.move_step(step, "Executing", Metadata={"TrainingJob": {"Arn": job.arn}})
    _await_end(execution, step, job)
    described = job.describe()
    execution.values.steps[step["Name"]] = described
    if job.status == "Stopped":
        if execution.stop_requested.is_set():
            raise StepStoppedError
        # Stopped by its time limit or by somebody: no source says what SageMaker makes of the step. Failing
        # is the
        # answer after which nobody takes a half-trained model for a whole one.
        raise StepFailedError(f"ClientError: Training job stopped: {described['SecondaryStatus']}")
    if job.status == "Failed":
        reason = described["FailureReason"]
        raise StepFailedError(
            f"ClientError: {reason}" if ":" not in reason else reason, exception_type_of(reason)
        )


def exception_type_of(reason: str) -> str | None:
    return next((kind for front, kind in EXCEPTION_TYPES.items() if reason.startswith(front)), None)


def _await_end(execution: PipelineExecution, step: Step, job: TrainingJob) -> None:
    stopping = False
    while not job.ended.wait(POLL_SECONDS):
        if execution.stop_requested.is_set() and not stopping:
            stopping = True
            denial = role_denial(execution.role_arn, "sagemaker:StopTrainingJob", job.arn)
            if denial:
                raise StepFailedError(
                    f"ClientError: Failed to invoke sagemaker:StopTrainingJob. Error Details: {denial}"
                )
            execution.move_step(step, "Stopping")
            job.stop_requested.set()


def _check_permissions(pipeline_role: str, request: Mapping[str, Any]) -> None:
    """What the pipeline's role needs to run the job."""
    job_arn = arn("sagemaker", f"training-job/{request['TrainingJobName']}")
    passed_to = {"iam:PassedToService": "sagemaker.amazonaws.com"}
    needed: list[tuple[str, str, dict[str, str] | None]] = [
        ("sagemaker:CreateTrainingJob", job_arn, None),
        ("sagemaker:AddTags", job_arn, None),
        ("sagemaker:DescribeTrainingJob", job_arn, None),
        ("iam:PassRole", str(request.get("RoleArn", "")), passed_to),
    ]
    for action, resource, conditions in needed:
        denial = role_denial(
            pipeline_role, action, resource, conditions, assumed_by="sagemaker.amazonaws.com"
        )
        if denial:
            raise StepFailedError(
                f"ClientError: Failed to invoke sagemaker:CreateTrainingJob. Error Details: {denial}"
            )
