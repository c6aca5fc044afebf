"""The pipeline's definition: parameters, conditions and training steps.

MaxWaitTimeInSeconds is refused without spot, a channel over an empty prefix is refused and Condition steps cannot be
nested. So there is one training step a mode, each behind a flat Condition step whose conditions are ANDed.
"""

from __future__ import annotations

import json
from typing import Any

from sagemaker.core.workflow.conditions import (
    Condition,
    ConditionEquals,
    ConditionGreaterThanOrEqualTo,
    ConditionLessThan,
)
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join
from sagemaker.core.workflow.parameters import ParameterBoolean, ParameterInteger, ParameterString
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.fail_step import FailStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.retry import (
    RetryPolicy,
    StepExceptionTypeEnum,
    StepRetryPolicy,
)

from pipeline.training_job import TrainingJob, TrainingJobStep

SMALLEST_VOLUME_GB = 50
TRAINING_MODES = ["by-hand", "on-demand", "spot"]
NOT_GIVEN = "none"  # SageMaker's string parameters may not be empty where an address is expected


def render(bucket: str, image_uri: str, role_arn: str) -> dict[str, Any]:
    """The definition as the API takes it (version 2020-12-01).

    Args:
        bucket: name of the project's bucket, for the defaults of a pipeline that is started by hand.
        image_uri: default TrainingDockerImage, with a tag.
        role_arn: the training job's role.
    """
    definition: dict[str, Any] = json.loads(_pipeline(bucket, image_uri, role_arn).definition())
    # The SDK writes keys that it has no value for as null.
    return {key: value for key, value in definition.items() if value is not None}


def _pipeline(bucket: str, image_uri: str, role_arn: str) -> Pipeline:
    dataset = ParameterString("InputS3DatasetLocation", default_value=f"s3://{bucket}/0001-dataset/")
    output = ParameterString("OutputS3ModelLocation", default_value=f"s3://{bucket}/model-outputs/")
    image = ParameterString("TrainingDockerImage", default_value=image_uri)
    instance_type = ParameterString("TrainingInstanceType", default_value="ml.g5.8xlarge")
    volume = ParameterInteger("TrainingVolumeSizeInGB", default_value=SMALLEST_VOLUME_GB)
    max_runtime = ParameterInteger("MaxTrainingRuntimeInSeconds", default_value=86400)
    mode = ParameterString("TrainingMode", default_value="by-hand", enum_values=TRAINING_MODES)
    configuration = ParameterString("InputS3ConfigurationLocation", default_value=NOT_GIVEN)
    model = ParameterString("InputS3ModelLocation", default_value=NOT_GIVEN)
    checkpoints = ParameterString("CheckpointS3Location", default_value=NOT_GIVEN)
    max_wait = ParameterInteger("MaxWaitTimeInSeconds", default_value=172800)
    run_id = ParameterString("RunId", default_value="by-hand")
    isolation = ParameterBoolean("NetworkIsolation", default_value=False)

    shared: dict[str, Any] = {
        "role_arn": role_arn,
        "image": image,
        "instance_type": instance_type,
        "volume_gb": volume,
        "max_runtime_seconds": max_runtime,
        "run_id": run_id,
        "network_isolation": isolation,
        "output": output,
    }
    by_flow = {"dataset": dataset, "config": configuration, "model": model}
    # Whatever lies at the checkpoint address is restored at the start: one prefix an execution.
    own_checkpoints = Join(
        on="/", values=[f"s3://{bucket}/checkpoints", ExecutionVariables.PIPELINE_EXECUTION_ID, ""]
    )
    jobs = {
        "by-hand": TrainingJob(**shared, checkpoints=own_checkpoints, channels={"dataset": dataset}),
        "on-demand": TrainingJob(**shared, checkpoints=checkpoints, channels=by_flow),
        "spot": TrainingJob(**shared, checkpoints=checkpoints, channels=by_flow, max_wait_seconds=max_wait),
    }
    names = {"by-hand": "ByHand", "on-demand": "OnDemand", "spot": "OnSpot"}

    def when(name: str, training_mode: str) -> ConditionStep:
        conditions: list[Condition] = [
            ConditionGreaterThanOrEqualTo(left=volume, right=SMALLEST_VOLUME_GB),
            ConditionEquals(left=mode, right=training_mode),
        ]
        step = TrainingJobStep(f"Train{name}", jobs[training_mode].request(), _retry_policies())
        return ConditionStep(f"When{name}", conditions=conditions, if_steps=[step], else_steps=[])

    too_small = FailStep(
        "VolumeTooSmall",
        error_message=f"TrainingVolumeSizeInGB must be at least {SMALLEST_VOLUME_GB}: the image, the base model and "
        "the dataset do not fit on less.",
    )
    return Pipeline(
        name="rendered-offline",
        # Without experiments: they would ask for permissions that nothing here uses.
        pipeline_experiment_config=None,
        parameters=[
            dataset,
            output,
            image,
            instance_type,
            volume,
            max_runtime,
            mode,
            configuration,
            model,
            checkpoints,
            max_wait,
            run_id,
            isolation,
        ],
        steps=[
            ConditionStep(
                "RefuseSmallVolume",
                conditions=[ConditionLessThan(left=volume, right=SMALLEST_VOLUME_GB)],
                if_steps=[too_small],
                else_steps=[],
            ),
            *(when(names[training_mode], training_mode) for training_mode in TRAINING_MODES),
        ],
    )


def _retry_policies() -> list[RetryPolicy]:
    # Lack of capacity and of quota are not repeated here: the user is told what to raise or to name instead.
    return [
        StepRetryPolicy(
            exception_types=[StepExceptionTypeEnum.SERVICE_FAULT, StepExceptionTypeEnum.THROTTLING],
            interval_seconds=10,
            backoff_rate=2.0,
            max_attempts=5,
        )
    ]
