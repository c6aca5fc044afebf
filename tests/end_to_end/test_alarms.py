"""The alarms of the deployed stack, and the metrics that its functions publish."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.definitions import resources
from tests.end_to_end.journey import Stack, eventually

ALARMS = sorted(each["AlarmName"]["Fn::Sub"] for each in resources("AWS::CloudWatch::Alarm").values())


def _alarm(stack: Stack, pattern: str) -> dict[str, Any]:
    name = pattern.replace("${ProjectName}", stack.outputs["StateMachineArn"].rpartition(":")[2])
    (found,) = stack.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    described: dict[str, Any] = found
    return described


@pytest.mark.parametrize("pattern", ALARMS)
def test_an_alarm_whose_metric_crosses_its_threshold_is_mailed(stack: Stack, pattern: str) -> None:
    alarm = _alarm(stack, pattern)
    datum = {
        "MetricName": alarm["MetricName"],
        "Dimensions": alarm["Dimensions"],
        "Value": alarm["Threshold"] + 1,
    }
    stack.client("cloudwatch").put_metric_data(Namespace=alarm["Namespace"], MetricData=[datum])
    assert _alarm(stack, pattern)["StateValue"] == "ALARM"
    subject = f'ALARM: "{alarm["AlarmName"]}" in us-east-1'
    eventually(lambda: subject in stack.alarm_mails(), f"the mail {subject}")


def test_a_run_that_ended_is_a_metric_that_its_alarm_could_watch(stack: Stack) -> None:
    failed = _alarm(stack, "${ProjectName}-failed-runs")
    (outcome,) = (each for each in failed["Dimensions"] if each["Name"] == "outcome")
    prefix = stack.drop("measured", {}, b"{")
    stack.record(prefix, {"REJECTED"})

    def outcomes() -> set[str]:
        listed = stack.client("cloudwatch").list_metrics(
            Namespace=failed["Namespace"], MetricName=failed["MetricName"]
        )["Metrics"]
        assert all(
            {d["Name"] for d in one["Dimensions"]} == {d["Name"] for d in failed["Dimensions"]}
            for one in listed
        )
        return {d["Value"] for one in listed for d in one["Dimensions"] if d["Name"] == outcome["Name"]}

    eventually(lambda: "REJECTED" in outcomes(), "the metric of the rejected run")
