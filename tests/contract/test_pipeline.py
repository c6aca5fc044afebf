"""The pipeline that template.yaml deploys is the one that the SDK renders, and SageMaker's API accepts its requests."""

from __future__ import annotations

import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from pipeline.__main__ import PLACEHOLDERS
from tests.contract.definitions import resources

# Values of the types that SageMaker puts in place of references.
PLACES = {
    "TrainingVolumeSizeInGB": 50,
    "MaxTrainingRuntimeInSeconds": 86400,
    "MaxWaitTimeInSeconds": 172800,
    "TrainingInstanceType": "ml.g5.8xlarge",
    "NetworkIsolation": True,
}


def deployed() -> dict[str, Any]:
    (properties,) = resources("AWS::SageMaker::Pipeline").values()
    definition: dict[str, Any] = json.loads(
        properties["PipelineDefinition"]["PipelineDefinitionBody"]["Fn::Sub"]
    )
    return definition


def placed(value: Any) -> Any:
    """The value with every reference replaced by something of its type."""
    if isinstance(value, dict):
        if set(value) == {"Get"}:
            return PLACES.get(value["Get"].split(".")[-1], "s3://bucket/prefix/")
        if set(value) == {"Std:Join"}:
            return "s3://bucket/prefix/"
        return {key: placed(inner) for key, inner in value.items()}
    if isinstance(value, str) and "${" in value:
        return "arn:aws:iam::000000000000:role/of-the-template"
    return [placed(inner) for inner in value] if isinstance(value, list) else value


def training_steps() -> list[dict[str, Any]]:
    conditions = [step for step in deployed()["Steps"] if step["Type"] == "Condition"]
    return [
        step for each in conditions for step in each["Arguments"]["IfSteps"] if step["Type"] == "Training"
    ]


def problems_of(request: dict[str, Any]) -> str:
    model = botocore.session.get_session().get_service_model("sagemaker")
    shape = model.operation_model("CreateTrainingJob").input_shape
    report = ParamValidator().validate({"TrainingJobName": "pipelines-x", **request}, shape)
    return str(report.generate_report())


def test_the_template_deploys_what_the_sdk_renders() -> None:
    from pipeline.definition import render

    assert deployed() == render(**PLACEHOLDERS), "run ./dev render-pipeline"


@pytest.mark.parametrize("step", training_steps(), ids=lambda step: str(step["Name"]))
def test_sagemaker_accepts_the_arguments_of_every_training_step(step: dict[str, Any]) -> None:
    assert problems_of(placed(step["Arguments"])) == ""


def test_the_check_of_arguments_can_fail() -> None:
    arguments = placed(training_steps()[0]["Arguments"])
    arguments["ResourceConfig"]["VolumeSizeInGB"] = "fifty"
    assert "VolumeSizeInGB" in problems_of(arguments)


@pytest.mark.parametrize("step", training_steps(), ids=lambda step: str(step["Name"]))
def test_max_wait_goes_with_spot_and_only_with_it(step: dict[str, Any]) -> None:
    spot = step["Arguments"].get("EnableManagedSpotTraining", False)
    assert ("MaxWaitTimeInSeconds" in step["Arguments"]["StoppingCondition"]) is spot


@pytest.mark.parametrize("step", training_steps(), ids=lambda step: str(step["Name"]))
def test_the_network_can_be_taken_from_every_training_and_is_there_by_default(step: dict[str, Any]) -> None:
    assert step["Arguments"]["EnableNetworkIsolation"] == {"Get": "Parameters.NetworkIsolation"}
    (parameter,) = [each for each in deployed()["Parameters"] if each["Name"] == "NetworkIsolation"]
    assert (parameter["Type"], parameter["DefaultValue"]) == ("Boolean", False)


def test_metric_definitions_stay_within_sagemakers_limits() -> None:
    for step in training_steps():
        definitions = step["Arguments"]["AlgorithmSpecification"]["MetricDefinitions"]
        assert len(definitions) <= 40
        assert all(len(each["Regex"]) <= 500 for each in definitions)


def test_condition_steps_are_not_nested() -> None:
    for step in deployed()["Steps"]:
        inner = step["Arguments"]["IfSteps"] + step["Arguments"]["ElseSteps"]
        assert "Condition" not in {each["Type"] for each in inner}


def test_people_find_the_parameters_that_they_know() -> None:
    defaults = {each["Name"]: each["DefaultValue"] for each in deployed()["Parameters"]}
    known = ["InputS3DatasetLocation", "OutputS3ModelLocation", "TrainingDockerImage", "TrainingInstanceType"]
    assert set(known) <= set(defaults)
    assert defaults["TrainingInstanceType"] == "ml.g5.8xlarge"
    assert defaults["TrainingVolumeSizeInGB"] == 50
    assert defaults["MaxTrainingRuntimeInSeconds"] == 86400
    assert defaults["TrainingMode"] == "by-hand"


def test_checkpoints_of_runs_started_by_hand_are_kept_apart() -> None:
    (step,) = [each for each in training_steps() if each["Name"] == "TrainByHand"]
    joined = step["Arguments"]["CheckpointConfig"]["S3Uri"]["Std:Join"]["Values"]
    assert {"Get": "Execution.PipelineExecutionId"} in joined
