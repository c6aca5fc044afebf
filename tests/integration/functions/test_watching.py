"""Events are hints: whatever comes, does not come, or comes in which order, what SageMaker itself says counts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import claim_identity
import observe_training
import pytest
from botocore.stub import Stubber

from fine_tuning.aws import deployment, sdk
from fine_tuning.aws.training import Training
from fine_tuning.quote import quote
from tests.functions_data import IMAGE, event
from tests.integration.functions import quick_dynamodb
from tests.integration.functions.conftest import ACCOUNT, REGION, Stack
from tests.integration.functions.runs import RUNG, planned, starting
from tests.integration.functions.sagemaker_answers import EXECUTION, JOB, describes, expects_stop, looks
from tests.integration.functions.test_training import answered, watch  # noqa: F401

Answers = list[dict[str, Any]]
PIPELINE_EVENT, JOB_EVENT = "sagemaker-pipeline-execution", "sagemaker-training-job"


def hear(stack: Stack, name: str = PIPELINE_EVENT, **detail: Any) -> str:
    return str(observe_training.handler(event(name, **detail), stack.context)["status"])


def test_a_lost_event_costs_one_look(stack: Stack, sagemaker: Stubber, answered: Answers) -> None:  # noqa: F811
    run = starting(stack)
    looks(sagemaker, "Executing")
    watch(stack, run, token="first")
    # No event comes; the state times out, and looks again with another token.
    looks(sagemaker, "Succeeded")
    watch(stack, run, token="second")
    assert [(answer["token"], answer["outcome"]) for answer in answered] == [("second", "succeeded")]


def test_a_repeated_event_answers_once(stack: Stack, sagemaker: Stubber, answered: Answers) -> None:  # noqa: F811
    run = starting(stack)
    looks(sagemaker, "Executing")
    watch(stack, run)
    for name in (PIPELINE_EVENT, JOB_EVENT, PIPELINE_EVENT):
        looks(sagemaker, "Failed", FailureReason="why")
        hear(stack, name)
    assert [answer["status"] for answer in answered] == ["Failed"]


@pytest.mark.parametrize(("said", "true"), [("Succeeded", "Executing"), ("Executing", "Succeeded")])
def test_an_event_out_of_order_is_not_believed(
    stack: Stack,
    sagemaker: Stubber,
    answered: Answers,  # noqa: F811
    said: str,
    true: str,
) -> None:
    run = starting(stack)
    looks(sagemaker, "Executing")
    watch(stack, run)
    looks(sagemaker, true)
    assert hear(stack, currentPipelineExecutionStatus=said) == true
    assert [answer["status"] for answer in answered] == ([true] if true == "Succeeded" else [])
    assert stack.record(run["run_id"])["observation"]["status"] == true


@pytest.mark.parametrize("since", ["STOPPED", "COMPLETED", "WAITING_FOR_CAPACITY", "another attempt"])
def test_a_late_event_changes_nothing(
    stack: Stack,
    sagemaker: Stubber,
    answered: Answers,  # noqa: F811
    since: str,
) -> None:
    run, records = starting(stack), deployment.deployment(None).records
    looks(sagemaker, "Executing")
    watch(stack, run)
    if since == "another attempt":
        other = {
            "pipeline_execution_arn": f"{EXECUTION[:-12]}bbbbbbbbbbbb",
            "pipeline_execution_id": "bbbbbbbbbbbb",
        }
        records.note(run["run_id"], other)
    else:
        records.advance(run["run_id"], since)
    before = stack.record(run["run_id"])
    # SageMaker is not even asked: the stub has no answer left.
    assert hear(stack) == "IGNORED"
    assert hear(stack, JOB_EVENT) == "IGNORED"
    assert stack.record(run["run_id"]) == before
    assert answered == []


def test_a_slow_look_at_an_earlier_attempt_leaves_the_later_one_alone(
    stack: Stack,
    sagemaker: Stubber,
    answered: Answers,  # noqa: F811
) -> None:
    run, records = starting(stack), deployment.deployment(None).records
    later = {
        "task_token": "later",
        "pipeline_execution_arn": f"{EXECUTION[:-12]}bbbbbbbbbbbb",
        "pipeline_execution_id": "bbbbbbbbbbbb",
    }
    records.advance(run["run_id"], "TRAINING", later, attempt=2)
    before = stack.record(run["run_id"])
    looks(sagemaker, "Failed", FailureReason="CapacityError: none")

    watch(stack, run, token="earlier", attempt=1)

    assert stack.record(run["run_id"]) == before
    assert [answer["token"] for answer in answered] == ["earlier"]


def test_an_attempt_that_ended_during_the_look_is_not_noted_for_the_next(
    stack: Stack,
    sagemaker: Stubber,
    answered: Answers,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, records = starting(stack), deployment.deployment(None).records
    looked = Training.observe

    def slowly(self: Training, arn: str) -> Any:
        seen = looked(self, arn)
        records.note(run["run_id"], {"pipeline_execution_arn": "next"}, attempt=2)
        return seen

    monkeypatch.setattr(Training, "observe", slowly)
    looks(sagemaker, "Executing")
    watch(stack, run, attempt=1)
    assert "observation" not in stack.record(run["run_id"])


def test_a_training_without_a_new_step_for_too_long_is_stopped_and_the_record_says_why(
    stack: Stack, sagemaker: Stubber, at: Callable[[datetime], None]
) -> None:
    run, begin = starting(stack), datetime.now(UTC)
    step = [{"MetricName": "train:step", "Value": 12.0}]
    for minutes in (0, 30, 59):
        at(begin + timedelta(minutes=minutes))
        runs_at(begin + timedelta(minutes=minutes))
        looks(sagemaker, "Executing", FinalMetricDataList=step)
        watch(stack, run, begin + timedelta(days=1))
    assert "stop_requested" not in stack.record(run["run_id"])

    at(begin + timedelta(minutes=60))
    runs_at(begin + timedelta(minutes=60))
    looks(sagemaker, "Executing", FinalMetricDataList=step)
    expects_stop(sagemaker)
    watch(stack, run, begin + timedelta(days=1))

    sagemaker.assert_no_pending_responses()
    assert stack.record(run["run_id"])["stop_requested"]["by"] == "stall"


def test_a_healthy_training_whose_metrics_nobody_takes_in_is_left_alone_and_that_is_told_once(
    stack: Stack, sagemaker: Stubber, at: Callable[[datetime], None]
) -> None:
    run, begin = starting(stack), datetime.now(UTC)
    runs_at(begin)
    for minutes in range(0, 121, 10):
        at(begin + timedelta(minutes=minutes))
        looks(sagemaker, "Executing", FinalMetricDataList=[{"MetricName": "train:step", "Value": 12.0}])
        watch(stack, run, begin + timedelta(days=1))
    sagemaker.assert_no_pending_responses()
    record = stack.record(run["run_id"])
    assert "stop_requested" not in record
    assert record["progress"]["unseen_since"] == (begin + timedelta(minutes=10)).isoformat(timespec="seconds")
    assert [mail["Subject"] for mail in stack.mails()] == ["Progress of cats cannot be seen"]


def runs_at(moment: datetime) -> None:
    """What SageMaker publishes of a job's instance, whatever its container does."""
    host = [{"Name": "Host", "Value": f"{JOB}/algo-1"}]
    datum: Any = {"MetricName": "CPUUtilization", "Dimensions": host, "Value": 100.0, "Timestamp": moment}
    sdk.client("cloudwatch").put_metric_data(Namespace="/aws/sagemaker/TrainingJobs", MetricData=[datum])


def test_a_training_that_encodes_thousands_of_images_is_waited_for_as_its_plan_quotes(
    stack: Stack, sagemaker: Stubber, at: Callable[[datetime], None]
) -> None:
    """5,000 images on an A10G: the quote has more than three hours before the first step."""
    large = quote("ml.g5.8xlarge", 2000, 5000, (1024, 1024), {})
    rung, run, begin = {**RUNG, "fixed_seconds": large.fixed_seconds}, starting(stack), datetime.now(UTC)
    assert large.fixed_seconds > 3 * 3600

    def look(minutes: float) -> None:
        at(begin + timedelta(minutes=minutes))
        runs_at(begin + timedelta(minutes=minutes))
        looks(sagemaker, "Executing")
        if minutes * 60 >= 2 * large.fixed_seconds:
            expects_stop(sagemaker)
        watch(stack, run, begin + timedelta(days=1), rung=rung)

    for minutes in (0, 60, 2 * large.fixed_seconds / 60 - 1):
        look(minutes)
    assert "stop_requested" not in stack.record(run["run_id"])

    look(2 * large.fixed_seconds / 60)

    sagemaker.assert_no_pending_responses()
    assert stack.record(run["run_id"])["stop_requested"]["by"] == "no-first-step"


def test_an_instance_that_comes_late_costs_the_training_none_of_its_time(
    stack: Stack, sagemaker: Stubber, at: Callable[[datetime], None]
) -> None:
    run, begin = starting(stack), datetime.now(UTC).replace(microsecond=0)
    came = begin + timedelta(minutes=115)
    limit = came + timedelta(seconds=RUNG["max_runtime_seconds"], hours=2)

    def look(moment: datetime, job: dict[str, Any], is_stopped: bool = False) -> None:
        at(moment)
        looks(sagemaker, "Executing", FinalMetricDataList=step(moment), **job)
        if is_stopped:
            expects_stop(sagemaker)
        watch(stack, run, begin + timedelta(hours=2))

    for minutes in (0, 60, 119):
        look(begin + timedelta(minutes=minutes), {"SecondaryStatus": "Pending"})
    for moment in (begin + timedelta(minutes=121), limit - timedelta(seconds=1)):
        look(moment, {"TrainingStartTime": came})
    assert "stop_requested" not in stack.record(run["run_id"])

    look(limit, {"TrainingStartTime": came}, is_stopped=True)

    sagemaker.assert_no_pending_responses()
    assert stack.record(run["run_id"])["stop_requested"] == {
        "by": "deadline",
        "at": limit.isoformat(),
        "pipeline_execution_arn": EXECUTION,
    }


def step(moment: datetime) -> list[dict[str, Any]]:
    """The metric of a training that moves."""
    return [{"MetricName": "train:step", "Value": moment.timestamp()}]


@pytest.mark.parametrize(
    ("job", "stopped_by"),
    [({"SecondaryStatus": "Pending"}, "no-instance"), ({"TrainingStartTime": datetime.now(UTC)}, "deadline")],
)
def test_on_spot_all_must_be_over_at_the_deadline(
    stack: Stack, sagemaker: Stubber, job: dict[str, Any], stopped_by: str
) -> None:
    run = starting(stack)
    looks(sagemaker, "Executing", **job)
    expects_stop(sagemaker)
    watch(stack, run, datetime.now(UTC) - timedelta(seconds=1), rung={**RUNG, "spot": True})
    sagemaker.assert_no_pending_responses()
    assert stack.record(run["run_id"])["stop_requested"]["by"] == stopped_by


def test_before_there_is_a_job_one_is_waited_for(stack: Stack, sagemaker: Stubber) -> None:
    run = starting(stack)
    describes(sagemaker, "Executing")
    sagemaker.add_response("list_pipeline_execution_steps", {"PipelineExecutionSteps": []})
    expects_stop(sagemaker)
    watch(stack, run, datetime.now(UTC) - timedelta(seconds=1))
    assert stack.record(run["run_id"])["stop_requested"]["by"] == "no-instance"


@pytest.mark.parametrize(("milestones", "mails"), [("", []), ("25,50", ["25 %", "50 %"])])
def test_milestones_are_mailed_once_each_and_only_if_asked_for(
    stack: Stack, sagemaker: Stubber, monkeypatch: pytest.MonkeyPatch, milestones: str, mails: list[str]
) -> None:
    monkeypatch.setenv("PROGRESS_MILESTONES", milestones)
    deployment.forget()
    with Stubber(sdk.client("sagemaker")) as stubber:
        run = starting(stack)
        for step in (10.0, 26.0, 26.0, 60.0):
            metrics = [
                {"MetricName": "train:step", "Value": step},
                {"MetricName": "train:total", "Value": 100.0},
            ]
            looks(stubber, "Executing", FinalMetricDataList=metrics)
            watch(stack, run)
    told = [mail["Subject"] for mail in stack.mails()]
    assert len(told) == len(mails)
    assert all(any(share in subject for subject in told) for share in mails)
    assert stack.record(run["run_id"])["status"] == "TRAINING"


def test_of_identical_runs_that_claim_at_the_same_moment_one_trains(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_dynamodb.install(monkeypatch, ACCOUNT, REGION)
    runs = [planned(stack, f"cats-{number:012}") for number in range(12)]

    def claim(run: dict[str, Any]) -> dict[str, Any]:
        return claim_identity.handler({"run": run, "image": IMAGE}, stack.context)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(claim, runs))
    (winner,) = [run for run, answer in zip(runs, answers, strict=True) if answer["status"] == "claimed"]
    others = [answer["repeats"] for answer in answers if answer["status"] == "repeated"]
    assert others == [winner["run_id"]] * 11
