"""Metrics that SageMaker reads out of a training job's log with the job's MetricDefinitions."""

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NAMESPACE = "/aws/sagemaker/TrainingJobs"


@dataclass
class MetricParser:
    """Applies each definition's expression to each line; its first group is the value.

    Attributes:
        definitions: MetricDefinitions of the request, {"Name", "Regex"}.
        latest: last value of each metric, as in DescribeTrainingJob's FinalMetricDataList.
    """

    definitions: Sequence[Mapping[str, str]]
    latest: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._expressions = [(item["Name"], re.compile(item["Regex"])) for item in self.definitions]

    def parse(self, line: str, at: float | None = None) -> list[dict[str, Any]]:
        """[{"MetricName", "Value", "Timestamp" (epoch seconds)}] of one line.

        A value that is not finite is left out: CloudWatch refuses NaN and infinity.
        """
        found = []
        for name, expression in self._expressions:
            match = expression.search(line)
            if match is None or not match.groups():
                continue
            try:
                value = float(match.group(1))
            except (TypeError, ValueError):
                continue
            if math.isfinite(value):
                self.latest[name] = {"MetricName": name, "Value": value, "Timestamp": at or time.time()}
                found.append(self.latest[name])
        return found

    def final(self) -> list[dict[str, Any]]:
        return list(self.latest.values())


def datum(metric: Mapping[str, Any], job_name: str) -> dict[str, Any]:
    """One entry of PutMetricData's MetricData, under the dimension that the SageMaker SDK's analytics read."""
    return {**metric, "Unit": "None", "Dimensions": [{"Name": "TrainingJobName", "Value": job_name}]}
