"""The CreateTrainingJob request of a pipeline step.

`sagemaker.train.ModelTrainer` (SDK 3.27) refuses pipeline variables for the volume, for spot and for both time limits,
so the request is written here as the API takes it (docs.aws.amazon.com, SageMaker API reference, CreateTrainingJob) and
checked with botocore's own validator by the contract tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sagemaker.core.workflow.functions import Join
from sagemaker.core.workflow.parameters import Parameter
from sagemaker.mlops.workflow.retry import RetryPolicy
from sagemaker.mlops.workflow.steps import ConfigurableRetryStep, StepTypeEnum

# What the container prints is its contract with the watcher: docs/contracts.md, "The training container".
METRIC_DEFINITIONS = (
    {"Name": "train:step", "Regex": r"progress step=([0-9]+)"},
    {"Name": "train:total", "Regex": r" total=([0-9]+)"},
    {"Name": "train:loss", "Regex": r" loss=([0-9.eE+-]+|nan|inf)"},
    {"Name": "train:learning_rate", "Regex": r" lr=([0-9.eE+-]+)"},
    {"Name": "train:images_per_second", "Regex": r" images_per_second=([0-9.eE+-]+)"},
    {"Name": "train:gpu_memory_gib", "Regex": r" gpu_memory_gib=([0-9.]+)"},
    {"Name": "train:eta_seconds", "Regex": r" eta_seconds=([0-9.]+)"},
    {"Name": "validation:loss", "Regex": r" validation_loss=([0-9.eE+-]+)"},
)


class TrainingJobStep(ConfigurableRetryStep):  # type: ignore[misc] # the SDK is published without types
    """A training step whose arguments are the request itself.

    Args:
        name: unique within the pipeline.
        request: CreateTrainingJob's arguments without TrainingJobName, which SageMaker makes up.
        retry_policies: what SageMaker repeats by itself.
    """

    def __init__(self, name: str, request: dict[str, Any], retry_policies: list[RetryPolicy]) -> None:
        super().__init__(name, StepTypeEnum.TRAINING, retry_policies=retry_policies)
        self._request = request

    @property
    def arguments(self) -> dict[str, Any]:
        return self._request

    @property
    def properties(self) -> None:
        """Demanded by the SDK's abstract Step."""
        raise NotImplementedError("no step of this pipeline reads another's properties")


@dataclass(frozen=True)
class TrainingJob:
    """What the training jobs of all modes share, and what differs.

    Attributes:
        role_arn: the role that the job runs as.
        image, instance_type, volume_gb, max_runtime_seconds, run_id, network_isolation: pipeline parameters.
        output: S3 address below which SageMaker writes `<job>/output/`.
        checkpoints: S3 address (parameter or Join) that is restored at the start; one prefix a run.
        channels: channel name → S3 prefix, each with a trailing slash.
        max_wait_seconds: set for spot only; SageMaker refuses it elsewhere.
    """

    role_arn: str
    image: Parameter
    instance_type: Parameter
    volume_gb: Parameter
    max_runtime_seconds: Parameter
    run_id: Parameter
    network_isolation: Parameter
    output: Parameter
    checkpoints: Parameter | Join
    channels: dict[str, Parameter]
    max_wait_seconds: Parameter | None = None

    def request(self) -> dict[str, Any]:
        stopping: dict[str, Any] = {"MaxRuntimeInSeconds": self.max_runtime_seconds}
        spot: dict[str, Any] = {}
        if self.max_wait_seconds is not None:
            stopping["MaxWaitTimeInSeconds"] = self.max_wait_seconds
            spot["EnableManagedSpotTraining"] = True
        return {
            "AlgorithmSpecification": {
                "TrainingImage": self.image,
                "TrainingInputMode": "File",
                "MetricDefinitions": list(METRIC_DEFINITIONS),
            },
            "RoleArn": self.role_arn,
            "HyperParameters": {"run_id": self.run_id, "image": self.image},
            "InputDataConfig": [_channel(name, prefix) for name, prefix in self.channels.items()],
            # NONE leaves plain files: the model can be opened where it lies, and its header read by a ranged GET.
            "OutputDataConfig": {"S3OutputPath": self.output, "CompressionType": "NONE"},
            "CheckpointConfig": {"S3Uri": self.checkpoints, "LocalPath": "/opt/ml/checkpoints"},
            "ResourceConfig": {
                "InstanceCount": 1,
                "InstanceType": self.instance_type,
                "VolumeSizeInGB": self.volume_gb,
            },
            "StoppingCondition": stopping,
            "EnableNetworkIsolation": self.network_isolation,
            **spot,
        }


def _channel(name: str, prefix: Parameter) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": prefix, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}
