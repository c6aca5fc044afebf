"""Watching and stopping a training. SageMaker answers what its API model allows."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import notify
import observe_training
import pytest
import reconcile_runs
import stop_training
import watch_training
from botocore.exceptions import ReadTimeoutError
from botocore.stub import Stubber

from fine_tuning.aws import sdk
from tests.functions_data import event
from tests.integration.functions.conftest import Stack
from tests.integration.functions.runs import RUNG, planned
from tests.integration.functions.sagemaker_answers import EXECUTION, JOB, expects_stop, looks


@pytest.fixture
def answered(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The outputs that task tokens were answered with."""
    answers: list[dict[str, Any]] = []

    def send(taskToken: str, output: str) -> dict[str, Any]:  # noqa: N803
        answers.append({"token": taskToken, **json.loads(output)})
        return {}

    monkeypatch.setattr(sdk.client("stepfunctions"), "send_task_success", send)
    return answers


def watch(
    stack: Stack,
    run: dict[str, Any],
    deadline: datetime | None = None,
    token: str = "t1",
    attempt: int = 1,
    rung: dict[str, Any] | None = None,
) -> dict[str, Any]:
    moment = deadline or datetime.now(UTC) + timedelta(hours=1)
    payload = {
        "run": run,
        "pipeline_execution_arn": EXECUTION,
        "token": token,
        "deadline": moment.isoformat(),
        "rung": rung or RUNG,
        "attempt": attempt,
    }
    return watch_training.handler(payload, stack.context)


def test_given_a_running_job_then_progress_is_recorded_and_the_event_that_ends_it_answers_the_token_once(
    stack: Stack, sagemaker: Stubber, answered: list[dict[str, Any]]
) -> None:
    run = planned(stack)
    looks(sagemaker, "Executing", FinalMetricDataList=[{"MetricName": "train:step", "Value": 12.0}])
    assert watch(stack, run)["step"] == 12
    record = stack.record(run["run_id"])
    assert (record["status"], record["task_token"]) == ("TRAINING", "t1")
    assert (record["pipeline_execution_id"], record["observation"]["step"]) == ("a1b2c3d4e5f6", 12)
    assert answered == []

    looks(sagemaker, "Succeeded", BillableTimeInSeconds=600, TrainingJobStatus="Completed")
    observed = observe_training.handler(event("sagemaker-pipeline-execution"), stack.context)

    assert (observed["terminal"], observed["cost_usd"]) == (True, 0.51)
    assert [(a["token"], a["status"]) for a in answered] == [("t1", "Succeeded")]
    assert "task_token" not in stack.record(run["run_id"])
    # The same event again: the token is gone, nothing is answered twice.
    looks(sagemaker, "Succeeded")
    observe_training.handler(event("sagemaker-training-job"), stack.context)
    assert len(answered) == 1


def test_given_metrics_of_the_job_then_the_latest_are_observed(stack: Stack, sagemaker: Stubber) -> None:
    run = planned(stack)
    looks(sagemaker, "Executing")
    dimension = [{"Name": "TrainingJobName", "Value": JOB}]
    now = datetime.now(UTC)
    data = [
        {
            "MetricName": metric,
            "Dimensions": dimension,
            "Value": value,
            "Timestamp": now - timedelta(minutes=age),
        }
        for metric, value, age in [
            ("train:step", 3.0, 4),
            ("train:step", 7.0, 1),
            ("train:total", 60.0, 1),
            ("train:loss", 0.25, 1),
            ("train:eta_seconds", 90.0, 1),
        ]
    ]
    # Of the instance, whose GPUs are added up, and of another job's.
    data += [
        {
            "MetricName": "GPUUtilization",
            "Dimensions": [{"Name": "Host", "Value": host}],
            "Value": value,
            "Timestamp": now - timedelta(minutes=age),
        }
        for host, value, age in [
            (f"{JOB}/algo-1", 80.0, 4),
            (f"{JOB}/algo-1", 95.0, 1),
            ("another/algo-1", 5.0, 1),
        ]
    ]
    sdk.client("cloudwatch").put_metric_data(Namespace="/aws/sagemaker/TrainingJobs", MetricData=data)

    seen = watch(stack, run)

    assert (seen["step"], seen["total"], seen["loss"], seen["eta_seconds"]) == (7, 60, 0.25, 90)
    assert seen["gpu_utilization"] == 87.5


def test_given_metrics_that_come_oldest_first_then_the_latest_are_observed(
    stack: Stack, sagemaker: Stubber
) -> None:
    run = planned(stack)
    looks(sagemaker, "Executing")
    now = datetime.now(UTC)
    times = [now - timedelta(minutes=minutes) for minutes in (3, 2, 1)]
    step = {"Id": "step", "Label": "train:step", "Timestamps": times, "Values": [2.0, 30.0, 52.0]}
    with Stubber(sdk.client("cloudwatch")) as cloudwatch:
        cloudwatch.add_response("get_metric_data", {"MetricDataResults": [step]})
        seen = watch(stack, run)

    assert seen["step"] == 52


@pytest.mark.parametrize(
    "code", ["AccessDenied", "ThrottlingException", "InvalidParameterValue", "InternalServiceFault"]
)
def test_given_metrics_that_cannot_be_read_then_the_token_is_answered_all_the_same(
    stack: Stack, sagemaker: Stubber, answered: list[dict[str, Any]], code: str
) -> None:
    run = planned(stack)
    looks(sagemaker, "Succeeded", FinalMetricDataList=[{"MetricName": "train:step", "Value": 60.0}])
    with Stubber(sdk.client("cloudwatch")) as cloudwatch:
        cloudwatch.add_client_error("get_metric_data", code)
        seen = watch(stack, run)
        cloudwatch.assert_no_pending_responses()
    assert (seen["step"], seen["loss"]) == (60, None)
    assert [answer["status"] for answer in answered] == ["Succeeded"]


def test_given_cloudwatch_is_out_of_reach_then_the_training_is_watched_all_the_same(
    stack: Stack, sagemaker: Stubber, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(**_: Any) -> dict[str, Any]:
        raise ReadTimeoutError(endpoint_url="https://monitoring")

    monkeypatch.setattr(sdk.client("cloudwatch"), "get_metric_data", unreachable)
    looks(sagemaker, "Executing")
    assert watch(stack, planned(stack))["status"] == "Executing"


def test_given_prices_that_are_none_then_a_training_is_watched_to_its_end_without_its_cost(
    stack: Stack, sagemaker: Stubber, answered: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRICES_USD_PER_HOUR", "{")
    run = planned(stack)
    looks(sagemaker, "Executing")
    assert watch(stack, run)["cost_usd"] is None

    looks(sagemaker, "Succeeded", BillableTimeInSeconds=600, TrainingJobStatus="Completed")
    observe_training.handler(event("sagemaker-pipeline-execution"), stack.context)

    assert [(answer["status"], answer["seconds"], answer["cost_usd"]) for answer in answered] == [
        ("Succeeded", 600, None)
    ]


def test_given_prices_that_are_none_then_a_job_whose_run_is_over_is_stopped_all_the_same(
    stack: Stack, sagemaker: Stubber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRICES_USD_PER_HOUR", "{")
    run = planned(stack)
    payload = {"run": run, "pipeline_execution_arn": EXECUTION}
    expects_stop(sagemaker)
    assert stop_training.handler(payload, stack.context)["stopped"] is True
    sagemaker.assert_no_pending_responses()
    sagemaker.add_response("list_pipeline_executions", {"PipelineExecutionSummaries": []})
    assert reconcile_runs.handler({}, stack.context)["ended"] == []


def test_one_endpoint_that_does_not_answer_leaves_time_within_a_functions_minute(stack: Stack) -> None:
    settings = sdk.client("sagemaker").meta.config
    attempts = settings.retries["total_max_attempts"]
    longest_pauses = sum(2**retry for retry in range(attempts - 1))  # seconds; botocore's standard mode
    assert settings.retries["mode"] == "standard"
    assert attempts == 3
    assert attempts * (settings.connect_timeout + settings.read_timeout) + longest_pauses <= 40


@pytest.mark.parametrize("name", ["sagemaker-pipeline-execution", "sagemaker-training-job"])
def test_given_an_event_of_an_unknown_pipeline_run_then_it_is_ignored(
    stack: Stack, sagemaker: Stubber, name: str
) -> None:
    assert observe_training.handler(event(name), stack.context) == {"status": "IGNORED"}
    assert (
        observe_training.handler(event(name, TrainingJobName="somebody-elses"), stack.context)["status"]
        == "IGNORED"
    )


def test_given_the_end_came_before_the_token_then_the_first_look_answers_it(
    stack: Stack, sagemaker: Stubber, answered: list[dict[str, Any]]
) -> None:
    run = planned(stack)
    looks(
        sagemaker,
        "Failed",
        FailureReason="AlgorithmError: Out of memory.\nUse a smaller batch.\nlast line, exit code: 1",
    )

    watch(stack, run)

    assert answered[0]["reason"] == "Out of memory.\nUse a smaller batch.\nlast line"


@pytest.mark.parametrize("late", ["TaskTimedOut", "TaskDoesNotExist", "InvalidToken"])
def test_given_the_flow_no_longer_waits_then_a_late_answer_is_no_error(
    stack: Stack, sagemaker: Stubber, late: str
) -> None:
    run = planned(stack)
    looks(sagemaker, "Succeeded")
    with Stubber(sdk.client("stepfunctions")) as step_functions:
        step_functions.add_client_error("send_task_success", late)
        watch(stack, run)
        step_functions.assert_no_pending_responses()
    assert "task_token" not in stack.record(run["run_id"])


def test_given_the_deadline_has_passed_then_the_pipeline_execution_is_stopped(
    stack: Stack, sagemaker: Stubber
) -> None:
    run = planned(stack)
    looks(sagemaker, "Executing", SecondaryStatus="Starting")
    expects_stop(sagemaker)

    watch(stack, run, datetime.now(UTC) - timedelta(seconds=1))

    # The next look finds it stopping, and does not ask again.
    looks(sagemaker, "Stopping")
    assert watch(stack, run, datetime.now(UTC) - timedelta(seconds=1))["status"] == "Stopping"
    sagemaker.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("status", "recorded"), [("ABORTED", "STOPPED"), ("TIMED_OUT", "FAILED"), ("FAILED", "FAILED")]
)
def test_given_the_flow_was_ended_from_outside_then_the_job_is_stopped_and_one_mail_goes_out(
    stack: Stack, sagemaker: Stubber, status: str, recorded: str
) -> None:
    run = planned(stack)
    looks(sagemaker, "Executing")
    watch(stack, run)
    ended = event("stepfunctions-execution-aborted", status=status, name=run["run_id"])
    for _ in range(2):
        expects_stop(sagemaker)

    assert stop_training.handler(ended, stack.context)["stopped"] is True
    stop_training.handler(ended, stack.context)

    (mail,) = stack.mails()
    assert mail["MessageAttributes"]["status"]["Value"] == recorded
    assert stack.record(run["run_id"])["status"] == recorded
    sagemaker.assert_no_pending_responses()


def test_given_the_flow_told_of_its_failure_itself_then_its_end_is_not_told_again(stack: Stack) -> None:
    run = planned(stack)
    cause = json.dumps({"errorType": "AccessDeniedError", "errorMessage": "No. What to do: Ask for it."})
    facts = {"stage": "PlanRun", "error": "AccessDeniedError", "cause": cause}
    notify.handler({"run": run, "kind": "failed", "facts": facts}, stack.context)
    ended = event("stepfunctions-execution-aborted", status="FAILED", name=run["run_id"])

    stop_training.handler(ended, stack.context)

    (mail,) = stack.mails()
    assert "Ask for it." in mail["Message"]
    assert "errorType" not in mail["Message"]
    assert stack.record(run["run_id"])["failure"] == {"cause": "No.", "remedy": "Ask for it."}


def test_given_an_unknown_execution_ended_then_nothing_happens(stack: Stack) -> None:
    ended = event("stepfunctions-execution-aborted", name="unknown")
    assert stop_training.handler(ended, stack.context)["run_id"] is None
    assert stack.mails() == []
