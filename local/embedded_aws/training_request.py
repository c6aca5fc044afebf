"""What SageMaker refuses of a CreateTrainingJob request beyond its shape. Pure.

Source: the API reference of CreateTrainingJob, StoppingCondition and HyperParameters.
"""

from collections.abc import Mapping
from typing import Any

from local.embedded_aws.request_validation import RequestError, validate

HYPERPARAMETER_LENGTH = 256
LOCAL_NVME = ("ml.g5.", "ml.g4dn.", "ml.g6.", "ml.g6e.", "ml.p4d.", "ml.p4de.", "ml.p5.")
NOT_EMULATED = ("TrainingPlanArn", "InstanceGroups", "InstancePreferences", "KeepAlivePeriodInSeconds")


def check_training_request(request: Mapping[str, Any]) -> None:
    """Raise RequestError for a request that SageMaker refuses, or that the embedded AWS does not emulate."""
    validate("sagemaker", "CreateTrainingJob", request)
    for check in (_check_algorithm, _check_hyperparameters, _check_channels, _check_resources, _check_times):
        check(request)


def _refuse(message: str) -> RequestError:
    return RequestError("ValidationException", message)


def _check_algorithm(request: Mapping[str, Any]) -> None:
    algorithm = request.get("AlgorithmSpecification") or {}
    if not algorithm.get("TrainingImage"):
        raise _refuse("AlgorithmSpecification must have a TrainingImage (algorithm names are not emulated).")
    if algorithm.get("TrainingInputMode") != "File":
        raise _refuse("TrainingInputMode must be File (Pipe and FastFile are not emulated).")
    for name in ("ContainerEntrypoint", "ContainerArguments"):
        if name in algorithm:
            raise _refuse(f"{name} is not emulated: the image is run as `train`.")


def _check_hyperparameters(request: Mapping[str, Any]) -> None:
    for key, value in (request.get("HyperParameters") or {}).items():
        # The model allows 2,500 characters for a value, the prose 256: what is within both is taken
        # everywhere.
        if len(key) > HYPERPARAMETER_LENGTH or len(value) > HYPERPARAMETER_LENGTH:
            raise _refuse(
                f"Value '{value}' at 'hyperParameters.{key}' failed to satisfy constraint: "
                f"Member must have length less than or equal to {HYPERPARAMETER_LENGTH}"
            )


def _check_channels(request: Mapping[str, Any]) -> None:
    channels = request.get("InputDataConfig") or []
    names = [channel["ChannelName"] for channel in channels]
    if len(set(names)) != len(names):
        raise _refuse(f"Channel names must be unique: {', '.join(names)}")
    for channel in channels:
        source = channel["DataSource"].get("S3DataSource")
        if source is None or source["S3DataType"] != "S3Prefix":
            raise _refuse(
                f"Channel {channel['ChannelName']} must be an S3Prefix (other sources are not emulated)."
            )
        if channel.get("InputMode", "File") != "File" or channel.get("CompressionType", "None") != "None":
            raise _refuse(f"Channel {channel['ChannelName']}: only plain files in File mode are emulated.")


def _check_resources(request: Mapping[str, Any]) -> None:
    resources = request.get("ResourceConfig")
    if not resources:
        raise _refuse("ResourceConfig must be specified.")
    for name in NOT_EMULATED:
        if name in resources:
            raise _refuse(f"ResourceConfig.{name} is not emulated.")
    for name in ("InstanceType", "InstanceCount"):
        if name not in resources:
            raise _refuse(f"ResourceConfig.{name} must be specified.")
    if not resources.get("VolumeSizeInGB"):
        raise _refuse("ResourceConfig.VolumeSizeInGB must be greater than 0.")
    if resources["InstanceCount"] > 1:
        raise RequestError(
            "ResourceLimitExceeded",
            f"The account-level service limit '{resources['InstanceType']} for training job usage' "
            "is 1 Instances, "
            f"with a request delta of {resources['InstanceCount']} Instances.",
        )
    if "VolumeKmsKeyId" in resources and resources["InstanceType"].startswith(LOCAL_NVME):
        raise _refuse(
            f"VolumeKmsKeyId is not supported for {resources['InstanceType']}: it has local NVMe storage."
        )


def _check_times(request: Mapping[str, Any]) -> None:
    times = request.get("StoppingCondition") or {}
    spot, wait = request.get("EnableManagedSpotTraining", False), times.get("MaxWaitTimeInSeconds")
    if not spot:
        if wait is not None:
            raise _refuse("MaxWaitTimeInSeconds is only supported if EnableManagedSpotTraining is true.")
        return
    if wait is None:
        raise _refuse("MaxWaitTimeInSeconds must be specified if EnableManagedSpotTraining is true.")
    run = times.get("MaxRuntimeInSeconds", 86400)
    if wait < run:
        raise _refuse(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
            f"MaxRuntimeInSeconds ({run})."
        )
