"""A training job's record: what DescribeTrainingJob answers, and the event that each change of it emits."""

import threading
import time
from collections.abc import Mapping
from typing import Any

from local.embedded_aws.registration import arn, emit_event
from local.embedded_aws.training_metrics import MetricParser

DETAIL_TYPE = "SageMaker Training Job State Change"
ENDED = ("Completed", "Failed", "Stopped")
REASON_LENGTH = 1024

EVENT_MEMBERS = (
    "TrainingJobName",
    "TrainingJobArn",
    "TrainingJobStatus",
    "SecondaryStatus",
    "FailureReason",
    "HyperParameters",
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "OutputDataConfig",
    "ModelArtifacts",
    "ResourceConfig",
    "StoppingCondition",
    "EnableManagedSpotTraining",
)
EVENT_TIMES = ("CreationTime", "TrainingStartTime", "TrainingEndTime", "LastModifiedTime")


class TrainingJob:
    """One job.

    Attributes:
        request: CreateTrainingJob's, checked.
        name, arn: of the job.
        stop_requested, interruption_requested: set by the API, read by the thread that runs the job.
        ended: set when the status is one of ENDED.
        metrics: what the log has told.
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.request = dict(request)
        self.name: str = request["TrainingJobName"]
        self.arn = arn("sagemaker", f"training-job/{self.name}")
        self.tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags") or []}
        self.stop_requested, self.interruption_requested = threading.Event(), threading.Event()
        self.ended = threading.Event()
        algorithm = request["AlgorithmSpecification"]
        self.metrics = MetricParser(algorithm.get("MetricDefinitions") or [])
        now = time.time()
        self._lock = threading.RLock()
        self._description: dict[str, Any] = {
            "EnableNetworkIsolation": False,
            "EnableInterContainerTrafficEncryption": False,
            "EnableManagedSpotTraining": False,
            "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
            **{key: value for key, value in request.items() if key != "Tags"},
            "TrainingJobArn": self.arn,
            "ModelArtifacts": {},
            "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Starting",
            "CreationTime": now,
            "LastModifiedTime": now,
            "SecondaryStatusTransitions": [],
        }

    @property
    def status(self) -> str:
        return str(self._description["TrainingJobStatus"])

    def describe(self) -> dict[str, Any]:
        with self._lock:
            transitions = [dict(item) for item in self._description["SecondaryStatusTransitions"]]
            metrics = self.metrics.final()
            return {
                **self._description,
                "SecondaryStatusTransitions": transitions,
                **({"FinalMetricDataList": metrics} if metrics else {}),
            }

    def move(self, status: str, secondary: str, message: str, **members: Any) -> None:
        """Change status and further members of the description, then emit the event."""
        with self._lock:
            if self.ended.is_set():
                return
            now = time.time()
            transitions = self._description["SecondaryStatusTransitions"]
            if transitions:
                transitions[-1]["EndTime"] = now
            transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})
            self._description.update(
                members, TrainingJobStatus=status, SecondaryStatus=secondary, LastModifiedTime=now
            )
            if status in ENDED:
                transitions[-1]["EndTime"] = now
                self.ended.set()
            detail = event_detail(self._description, self.tags)
        emit_event("aws.sagemaker", DETAIL_TYPE, detail, [self.arn])

    def fail(self, reason: str, **members: Any) -> None:
        self.move("Failed", "Failed", "Training job failed", FailureReason=reason[:REASON_LENGTH], **members)


def event_detail(description: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, Any]:
    """The detail of a state-change event: PascalCase, times in milliseconds since 1970."""
    detail = {name: description[name] for name in EVENT_MEMBERS if name in description}
    detail.update({name: int(description[name] * 1000) for name in EVENT_TIMES if name in description})
    detail["SecondaryStatusTransitions"] = [
        {key: int(value * 1000) if key.endswith("Time") else value for key, value in transition.items()}
        for transition in description["SecondaryStatusTransitions"]
    ]
    detail["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    return detail
