"""An alarm of CloudWatch watches one metric and is mailed."""

import json
from typing import Any

import pytest

from tests.embedded_aws.running import RunningEmbeddedAws, allow


@pytest.fixture
def alarm(aws: RunningEmbeddedAws, unique: str) -> str:
    """Over what failed alone, mailed to an address of its own."""
    topic = aws.client("sns").create_topic(Name=unique)["TopicArn"]
    aws.client("sns").subscribe(TopicArn=topic, Protocol="email", Endpoint=f"{unique}@example.com")
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName=unique,
        Namespace=unique,
        MetricName="Runs",
        Dimensions=[{"Name": "outcome", "Value": "FAILED"}],
        Statistic="Sum",
        Period=3600,
        EvaluationPeriods=1,
        Threshold=2,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
        AlarmActions=[topic],
    )
    return unique


def put(aws: RunningEmbeddedAws, namespace: str, value: float, **dimensions: str) -> None:
    named = [{"Name": name, "Value": text} for name, text in dimensions.items()]
    aws.client("cloudwatch").put_metric_data(
        Namespace=namespace, MetricData=[{"MetricName": "Runs", "Value": value, "Dimensions": named}]
    )


def state(aws: RunningEmbeddedAws, name: str) -> str:
    (found,) = aws.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return str(found["StateValue"])


def mails(aws: RunningEmbeddedAws, name: str) -> list[Any]:
    return [mail["Subject"] for mail in aws.mails() if mail["To"] == f"{name}@example.com"]


def test_the_values_of_other_dimensions_are_none_of_its_business(aws: RunningEmbeddedAws, alarm: str) -> None:
    put(aws, alarm, 9, outcome="COMPLETED")
    put(aws, alarm, 9)
    put(aws, alarm, 1, outcome="FAILED")
    assert state(aws, alarm) == "OK"
    assert mails(aws, alarm) == []


def test_a_threshold_that_is_crossed_is_mailed_once(aws: RunningEmbeddedAws, alarm: str) -> None:
    for _ in range(4):
        put(aws, alarm, 1, outcome="FAILED")
    assert state(aws, alarm) == "ALARM"
    assert mails(aws, alarm) == [f'ALARM: "{alarm}" in us-east-1']


def test_what_is_not_breaching_when_it_is_missing_is_well(aws: RunningEmbeddedAws, alarm: str) -> None:
    put(aws, f"another-than-{alarm}", 9, outcome="FAILED")
    assert state(aws, alarm) == "OK"


def test_a_metric_in_a_functions_log_raises_it(aws: RunningEmbeddedAws, alarm: str, unique: str) -> None:
    directive = {"Namespace": alarm, "Dimensions": [["outcome"]], "Metrics": [{"Name": "Runs"}]}
    line = {"_aws": {"Timestamp": 1, "CloudWatchMetrics": [directive]}, "outcome": "FAILED", "Runs": [2]}
    code = f"def handler(e, c):\n    print({json.dumps(line)!r})\n"
    aws.create_function(unique, code, aws.create_role(unique, "lambda.amazonaws.com", allow("*")))
    aws.client("lambda").invoke(FunctionName=unique, Payload=b"{}")
    assert state(aws, alarm) == "ALARM"
    assert len(mails(aws, alarm)) == 1
