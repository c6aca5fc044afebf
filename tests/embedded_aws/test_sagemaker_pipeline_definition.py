"""Pipeline definitions: what is refused, how parameters are bound, what references and conditions give."""

import json
from typing import Any

import pytest

from local.embedded_aws.pipeline_definition import Values, bind, holds, needed_steps, parse
from local.embedded_aws.request_validation import RequestError

FAIL = {"Name": "Stop", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}}


def definition(
    *steps: dict[str, Any], parameters: list[dict[str, Any]] | None = None, version: str = "2020-12-01"
) -> str:
    return json.dumps({"Version": version, "Parameters": parameters or [], "Steps": list(steps)})


def condition(name: str, *inner: dict[str, Any], **more: Any) -> dict[str, Any]:
    conditions = [{"Type": "Equals", "LeftValue": 1, "RightValue": 1}]
    arguments = {"Conditions": conditions, "IfSteps": list(inner), "ElseSteps": []}
    return {"Name": name, "Type": "Condition", "Arguments": arguments, **more}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no json", "cannot be read"),
        (definition(FAIL, version="2019"), "Version must be 2020-12-01"),
        (definition(), "has no steps"),
        (definition(FAIL, FAIL), "more than once"),
        (definition({"Name": "T", "Type": "Tuning"}), "Tuning of T is not emulated"),
        (definition({**FAIL, "DependsOn": ["Ghost"]}), "depends on Ghost"),
        (
            definition({**FAIL, "Arguments": {"ErrorMessage": {"Get": "Parameters.Ghost"}}}),
            "Parameters.Ghost",
        ),
        (definition({**FAIL, "Arguments": {"ErrorMessage": {"Get": "Execution.Ghost"}}}), "Execution.Ghost"),
        (definition(condition("A", condition("B", FAIL))), "holds another Condition step"),
        (
            definition({"Name": "A", "Type": "Condition", "Arguments": {"Conditions": []}}),
            "has no conditions",
        ),
        (definition(FAIL, parameters=[{"Name": "P", "Type": "Date"}]), "unknown type Date"),
    ],
)
def test_a_definition_that_sagemaker_refuses_is_refused(text: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as refused:
        parse(text)

    assert refused.value.code == "ValidationException"


PARAMETERS: list[dict[str, Any]] = [
    {"Name": "Volume", "Type": "Integer", "DefaultValue": 50},
    {"Name": "Mode", "Type": "String", "DefaultValue": "by-hand", "EnumValues": ["by-hand", "spot"]},
    {"Name": "Rate", "Type": "Float", "DefaultValue": 0.5},
    {"Name": "Spot", "Type": "Boolean", "DefaultValue": False},
]


def test_values_arrive_as_strings_and_get_the_parameters_type() -> None:
    given = [
        {"Name": "Volume", "Value": "80"},
        {"Name": "Rate", "Value": "1e-4"},
        {"Name": "Spot", "Value": "True"},
    ]

    bound = bind(parse(definition(FAIL, parameters=PARAMETERS)), given)

    assert bound == {"Volume": 80, "Mode": "by-hand", "Rate": 1e-4, "Spot": True}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("Ghost", "1", "not defined"),
        ("Volume", "many", "not of type Integer"),
        ("Mode", "fast", "not one of"),
        ("Spot", "maybe", "not of type Boolean"),
    ],
)
def test_a_wrong_parameter_is_refused(name: str, value: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        bind(parse(definition(FAIL, parameters=PARAMETERS)), [{"Name": name, "Value": value}])


def test_a_parameter_without_value_and_default_is_refused() -> None:
    with pytest.raises(RequestError, match="no value and no default"):
        bind(parse(definition(FAIL, parameters=[{"Name": "P", "Type": "String"}])), [])


def values() -> Values:
    steps = {
        "Train": {
            "ModelArtifacts": {"S3ModelArtifacts": "s3://b/m"},
            "FinalMetricDataList": [{"Value": 0.25}],
        }
    }
    return Values({"Volume": 80, "Bucket": "b"}, {"PipelineExecutionId": "abc"}, dict(steps))


def test_references_and_joins_are_resolved_wherever_they_stand() -> None:
    address = {
        "Std:Join": {
            "On": "/",
            "Values": ["s3:/", {"Get": "Parameters.Bucket"}, {"Get": "Execution.PipelineExecutionId"}],
        }
    }

    resolved = values().resolve({"a": [address], "b": {"Get": "Parameters.Volume"}, "c": {"d": 1}})

    assert resolved == {"a": ["s3://b/abc"], "b": 80, "c": {"d": 1}}


def test_properties_of_steps_are_resolved() -> None:
    assert values().resolve({"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}) == "s3://b/m"
    assert values().resolve({"Get": "Steps.Train.FinalMetricDataList[0].Value"}) == 0.25
    with pytest.raises(RequestError, match="Unable to resolve property reference"):
        values().resolve({"Get": "Steps.Train.Nothing"})


@pytest.mark.parametrize(
    ("kind", "left", "right", "expected"),
    [
        ("Equals", "a", "a", True),
        ("Equals", "a", "b", False),
        ("GreaterThan", 50, 50, False),
        ("GreaterThanOrEqualTo", 50, 50, True),
        ("LessThan", 49, 50, True),
        ("LessThan", 50, 50, False),
        ("LessThanOrEqualTo", 51, 50, False),
    ],
)
def test_comparisons(kind: str, left: object, right: object, expected: bool) -> None:
    assert holds({"Type": kind, "LeftValue": left, "RightValue": right}, values().resolve) is expected


def test_in_not_and_or() -> None:
    inside = {"Type": "In", "QueryValue": {"Get": "Parameters.Volume"}, "Values": [70, 80]}
    outside = {"Type": "Not", "Expression": inside}

    assert holds(inside, values().resolve)
    assert not holds(outside, values().resolve)
    assert holds({"Type": "Or", "Conditions": [outside, inside]}, values().resolve)


def test_a_number_is_not_compared_with_a_text() -> None:
    with pytest.raises(RequestError, match="cannot compare"):
        holds({"Type": "Equals", "LeftValue": 50, "RightValue": "50"}, values().resolve)


def test_a_step_needs_what_it_depends_on_and_what_it_reads() -> None:
    reads = {**FAIL, "Name": "Reads", "Arguments": {"ErrorMessage": {"Get": "Steps.Train.FailureReason"}}}

    assert needed_steps({**reads, "DependsOn": ["Other"]}) == {"Train", "Other"}
    assert needed_steps(condition("A", reads)) == {"Train"}
