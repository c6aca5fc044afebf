"""What SageMaker answers about one pipeline execution, as its API model allows."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.stub import Stubber

PIPELINE = "arn:aws:sagemaker:us-east-1:111122223333:pipeline/kohya-ss-fine-tuning-pipeline"
EXECUTION = f"{PIPELINE}/execution/a1b2c3d4e5f6"
JOB = "pipelines-a1b2c3d4e5f6-TrainOnDemand-Xy12Zw34Qr"


def describes(stubber: Stubber, status: str) -> None:
    described = {"PipelineExecutionArn": EXECUTION, "PipelineExecutionStatus": status}
    stubber.add_response("describe_pipeline_execution", described, {"PipelineExecutionArn": EXECUTION})


def looks(stubber: Stubber, status: str, **job: Any) -> None:
    """One look: the execution, its steps and its job."""
    describes(stubber, status)
    arn = f"arn:aws:sagemaker:us-east-1:111122223333:training-job/{JOB}"
    step = {"StepName": "TrainOnDemand", "StepStatus": "Executing", "Metadata": {"TrainingJob": {"Arn": arn}}}
    stubber.add_response("list_pipeline_execution_steps", {"PipelineExecutionSteps": [step]})
    now = datetime.now(UTC)
    described = {
        "TrainingJobName": JOB,
        "TrainingJobArn": arn,
        "ModelArtifacts": {"S3ModelArtifacts": ""},
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Training",
        "ResourceConfig": {"InstanceType": "ml.g5.8xlarge", "InstanceCount": 1, "VolumeSizeInGB": 50},
        "CreationTime": now - timedelta(minutes=5),
        "StoppingCondition": {"MaxRuntimeInSeconds": 2400},
        **job,
    }
    stubber.add_response("describe_training_job", described, {"TrainingJobName": JOB})


def expects_stop(stubber: Stubber) -> None:
    """The execution runs; then it is asked to stop."""
    describes(stubber, "Executing")
    token = hashlib.sha256(f"stop {EXECUTION}".encode()).hexdigest()
    stubber.add_response(
        "stop_pipeline_execution",
        {"PipelineExecutionArn": EXECUTION},
        {"PipelineExecutionArn": EXECUTION, "ClientRequestToken": token},
    )


def finds(stubber: Stubber, display_name: str | None, status: str = "Succeeded") -> None:
    """The pipeline's executions, in two pages; the second holds the one with that display name, if any."""
    request = {
        "PipelineName": PIPELINE.rpartition("/")[2],
        "SortBy": "CreationTime",
        "SortOrder": "Descending",
        "MaxResults": 100,
    }
    other = {"PipelineExecutionArn": f"{PIPELINE}/execution/bbbbbbbbbbbb"}
    first = {**other, "PipelineExecutionDisplayName": "dogs-0123456789ab"}
    mine = {
        "PipelineExecutionArn": EXECUTION,
        "PipelineExecutionDisplayName": display_name,
        "PipelineExecutionStatus": status,
    }
    stubber.add_response(
        "list_pipeline_executions", {"PipelineExecutionSummaries": [first], "NextToken": "n"}, request
    )
    stubber.add_response(
        "list_pipeline_executions",
        {"PipelineExecutionSummaries": [mine if display_name else other]},
        {**request, "NextToken": "n"},
    )
