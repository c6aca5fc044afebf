"""Alarms and dashboard against the metrics that the code emits, and against those that AWS documents."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from fine_tuning import measurements, statuses
from fine_tuning.observability import publish
from tests.contract.definitions import ROOT, resources, template

PROJECT = "kohya-ss-fine-tuning"
# Where AWS documents them: SQS developer guide, "Available CloudWatch metrics for Amazon SQS"; CodeBuild user guide,
# "Monitoring CodeBuild with CloudWatch"; SageMaker developer guide, "Metrics for monitoring Amazon SageMaker AI".
OF_AWS = {
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): {"QueueName"},
    ("AWS/CodeBuild", "FailedBuilds"): {"ProjectName"},
    ("/aws/sagemaker/TrainingJobs", "GPUUtilization"): {"Host"},
    ("/aws/sagemaker/TrainingJobs", "GPUMemoryUtilization"): {"Host"},
}
PLACEHOLDERS = {"ProjectName": PROJECT, "AWS::Region": "us-east-1"}

Series = tuple[str, str, frozenset[tuple[str, str]]]


def resolved(value: Any) -> str:
    if isinstance(value, dict):
        return PLACEHOLDERS.get(value.get("Ref", ""), json.dumps(value))
    return str(value)


def alarms() -> dict[str, dict[str, Any]]:
    return resources("AWS::CloudWatch::Alarm")


def watched(alarm: dict[str, Any]) -> Series:
    dimensions = {(each["Name"], resolved(each["Value"])) for each in alarm["Dimensions"]}
    return resolved(alarm["Namespace"]), alarm["MetricName"], frozenset(dimensions)


@pytest.fixture(scope="module")
def emitted() -> set[Series]:
    """Every metric that the functions publish with the environment that the template gives them."""
    variables = template()["Globals"]["Function"]["Environment"]["Variables"]
    before = dict(os.environ)
    os.environ.update({name: resolved(value) for name, value in variables.items()})
    try:
        return set(_published())
    finally:
        os.environ.clear()
        os.environ.update(before)


def _published() -> Iterator[Series]:
    record: dict[str, Any] = {
        "plan": {"estimated_cost_usd": 2.0},
        "observation": {"cost_usd": 1.0, "gpu_utilization": 91.0},
        "history": [
            {"status": status, "at": "2026-11-24T12:00:00+00:00"} for status in ("PLANNED", "TRAINING")
        ],
    }
    measured = [*measurements.of_start(record["plan"]), *measurements.of_silence(1)]
    for status in statuses.FINAL:
        measured += measurements.of_ending({**record, "status": status})
    with contextlib.redirect_stdout(io.StringIO()) as log:
        publish(measured)
    for line in log.getvalue().splitlines():
        entry = json.loads(line)
        for directive in entry["_aws"]["CloudWatchMetrics"]:
            for names in directive["Dimensions"]:
                for metric in directive["Metrics"]:
                    dimensions = frozenset((name, entry[name]) for name in names)
                    yield directive["Namespace"], metric["Name"], dimensions


@pytest.mark.parametrize("name", alarms())
def test_an_alarm_watches_a_metric_that_there_is(name: str, emitted: set[Series]) -> None:
    namespace, metric, dimensions = watched(alarms()[name])
    if namespace == PROJECT:
        assert (namespace, metric, dimensions) in emitted
    else:
        assert {key for key, _ in dimensions} == OF_AWS[namespace, metric]


@pytest.mark.parametrize("name", alarms())
def test_an_alarm_is_mailed_and_its_end_needs_no_data(name: str) -> None:
    alarm = alarms()[name]
    assert alarm["AlarmActions"] == [{"Ref": "Topic"}]
    assert alarm["TreatMissingData"] == "notBreaching"
    # CloudWatch looks back a day at most (API reference, PutMetricAlarm).
    assert alarm["Period"] * alarm["EvaluationPeriods"] <= 86400


def test_the_topic_takes_alarms_of_this_stack_and_is_not_under_a_key_that_they_cannot_use() -> None:
    (policy,) = resources("AWS::SNS::TopicPolicy").values()
    (statement,) = (
        each for each in policy["PolicyDocument"]["Statement"] if each["Sid"] == "AlarmsAreMailed"
    )
    assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    pattern = statement["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Sub"].rpartition(":")[2]
    assert pattern == "${ProjectName}-*"
    for name, alarm in alarms().items():
        assert alarm["AlarmName"]["Fn::Sub"].startswith("${ProjectName}-"), name
    assert "KmsMasterKeyId" not in resources("AWS::SNS::Topic")["Topic"]


def test_every_queue_has_an_alarm() -> None:
    queues = {
        alarm["Dimensions"][0]["Value"]["Fn::GetAtt"][0]
        for alarm in alarms().values()
        if alarm["Namespace"] == "AWS/SQS"
    }
    assert queues == set(resources("AWS::SQS::Queue"))


def of_operations() -> dict[str, str]:
    """What docs/operations.md says under each heading of its chapter on alarms."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    chapter = text.partition("\n## Alarms\n")[2].partition("\n## ")[0]
    return {each.partition("\n")[0]: each for each in chapter.split("\n### ")[1:]}


def heading_of(alarm: dict[str, Any]) -> str:
    found = re.search(r"docs/operations\.md, ([a-z-]+)\.", alarm["AlarmDescription"])
    assert found, alarm["AlarmDescription"]
    return found[1]


@pytest.mark.parametrize("name", alarms())
def test_operations_say_what_an_alarm_means_and_what_to_do(name: str) -> None:
    alarm = alarms()[name]
    heading = heading_of(alarm)
    assert alarm["AlarmName"]["Fn::Sub"].startswith(f"${{ProjectName}}-{heading}")
    for part in ("**Means**", "**Look at**", "**Do**"):
        assert part in of_operations()[heading], heading


def test_operations_speak_of_no_alarm_that_there_is_not() -> None:
    assert set(of_operations()) == {heading_of(alarm) for alarm in alarms().values()}


def test_operations_say_what_each_queue_of_dead_letters_is_missing() -> None:
    hops = {
        alarm["AlarmName"]["Fn::Sub"].removeprefix("${ProjectName}-dead-letters-")
        for alarm in alarms().values()
        if alarm["Namespace"] == "AWS/SQS"
    }
    assert set(re.findall(r"`([a-z-]+)`:", of_operations()["dead-letters"])) == hops


def dashboard() -> list[dict[str, Any]]:
    (properties,) = resources("AWS::CloudWatch::Dashboard").values()
    body: str = properties["DashboardBody"]["Fn::Sub"]
    text = re.sub(r"\$\{([^}]+)\}", lambda found: PLACEHOLDERS.get(found[1], found[1]), body)
    widgets: list[dict[str, Any]] = json.loads(text)["widgets"]
    return widgets


def test_the_dashboard_shows_metrics_that_there_are(emitted: set[Series]) -> None:
    shown: set[tuple[str, str]] = set()
    for widget in dashboard():
        for row in widget["properties"].get("metrics", ()):
            if isinstance(row[0], dict):
                found = re.fullmatch(
                    r"SEARCH\('\{(.+),(\w+)\} MetricName=\"(\w+)\"', '\w+', \d+\)", row[0]["expression"]
                )
                assert found, row
                assert OF_AWS[found[1], found[3]] == {found[2]}
                continue
            words = [word for word in row if isinstance(word, str)]
            namespace, metric, *pairs = words
            dimensions = frozenset(zip(pairs[::2], pairs[1::2], strict=True))
            shown.add((namespace, metric))
            if namespace == PROJECT:
                assert (namespace, metric, dimensions) in emitted
            else:
                assert {key for key, _ in dimensions} == OF_AWS[namespace, metric]
    assert {(PROJECT, metric) for _, metric, _ in emitted} <= shown


def test_the_dashboard_shows_every_alarm_and_every_queue() -> None:
    (widget,) = (each for each in dashboard() if each["type"] == "alarm")
    assert set(widget["properties"]["alarms"]) == {f"{name}.Arn" for name in alarms()}
    text = json.dumps(dashboard())
    for queue in resources("AWS::SQS::Queue"):
        assert f"{queue}.QueueName" in text


def test_widgets_lie_beside_each_other_and_name_their_region() -> None:
    taken: set[tuple[int, int]] = set()
    for widget in dashboard():
        cells = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not cells & taken
        assert widget["x"] + widget["width"] <= 24
        taken |= cells
        if widget["type"] != "alarm":
            assert widget["properties"]["region"] == "us-east-1"


def test_every_function_and_the_flow_are_traced() -> None:
    assert template()["Globals"]["Function"]["Tracing"] == "Active"
    assert not any("Tracing" in properties for properties in resources("AWS::Serverless::Function").values())
    (flow,) = resources("AWS::Serverless::StateMachine").values()
    assert flow["Tracing"] == {"Enabled": True}
