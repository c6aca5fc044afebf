"""The pipeline started by hand in SageMaker Studio, on a dataset of the older layout."""

from __future__ import annotations

import time
from typing import Any

from tests.end_to_end.journey import Stack, dataset, eventually

CONFIG = b"""
resolution = "256,256"
max_train_steps = 3
train_batch_size = 2
network_module = "networks.lora"
network_dim = 4
network_alpha = 2
caption_extension = ".txt"
output_name = "by-hand"
"""


def _start(stack: Stack, **parameters: str) -> str:
    values = [{"Name": name, "Value": value} for name, value in parameters.items()]
    started = stack.client("sagemaker").start_pipeline_execution(
        PipelineName=stack.outputs["PipelineName"], PipelineParameters=values
    )
    return str(started["PipelineExecutionArn"])


def _ended(stack: Stack, arn: str) -> dict[str, Any]:
    def described() -> dict[str, Any] | None:
        answer: dict[str, Any] = stack.client("sagemaker").describe_pipeline_execution(
            PipelineExecutionArn=arn
        )
        return answer if answer["PipelineExecutionStatus"] not in ("Executing", "Stopping") else None

    return eventually(described, "the end of the pipeline execution")


def test_it_trains_on_the_older_layout_with_nothing_but_its_defaults(stack: Stack) -> None:
    # Given 0001-dataset/ with its own configuration, and no manifest
    for path, body in dataset(2).items():
        stack.put(f"0001-dataset/{path}", body)
    stack.put("0001-dataset/kohya-sdxl-config.toml", CONFIG)
    mails = len(stack.mails_of_runs())
    # When somebody starts the pipeline as it stands
    ended = _ended(stack, _start(stack))
    # Then a model lies where such pipelines put theirs
    assert ended["PipelineExecutionStatus"] == "Succeeded", ended
    listed = stack.client("s3").list_objects_v2(Bucket=stack.bucket, Prefix="model-outputs/")
    assert any(each["Key"].endswith(".safetensors") for each in listed["Contents"])
    # and the flow, which did not start it, says nothing
    time.sleep(1)
    assert len(stack.mails_of_runs()) == mails


def test_a_volume_that_is_too_small_is_refused_with_the_reason(stack: Stack) -> None:
    ended = _ended(stack, _start(stack, TrainingVolumeSizeInGB="49"))
    assert ended["PipelineExecutionStatus"] == "Failed"
    listed = stack.client("sagemaker").list_pipeline_execution_steps(
        PipelineExecutionArn=ended["PipelineExecutionArn"]
    )
    steps = {each["StepName"]: each for each in listed["PipelineExecutionSteps"]}
    assert "at least 50" in steps["VolumeTooSmall"]["FailureReason"]
    assert not any(name.startswith("Train") for name in steps)


def test_an_empty_dataset_is_refused_by_name(stack: Stack) -> None:
    location = f"s3://{stack.bucket}/nothing-here/"
    ended = _ended(stack, _start(stack, InputS3DatasetLocation=location))
    assert ended["PipelineExecutionStatus"] == "Failed"
