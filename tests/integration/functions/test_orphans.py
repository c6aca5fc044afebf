"""No GPU job is left without a flow that waits for it, and no run without its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import notify
import pytest
import reconcile_runs
import stop_training
import validate_manifest
from botocore.stub import Stubber

from fine_tuning.aws import deployment, sdk
from fine_tuning.aws.training import Training
from fine_tuning.errors import AwsRequestError, RunsNotReconciledError
from fine_tuning.run import run_id_of
from tests.functions_data import BUCKET, dropped, event
from tests.integration.functions.conftest import Stack
from tests.integration.functions.runs import REPORT, SUMMARY, planned, starting
from tests.integration.functions.sagemaker_answers import EXECUTION, PIPELINE, describes, expects_stop, finds

LATER = timedelta(minutes=6)


THE_FLOW_STOPS = {"run": {"run_id": "cats-1"}, "pipeline_execution_arn": EXECUTION}


@pytest.fixture
def step_functions(stack: Stack) -> Iterator[Stubber]:
    with Stubber(sdk.client("stepfunctions")) as stubber:
        yield stubber


def tell_started(stack: Stack, run: dict[str, Any]) -> None:
    stack.put(f"runs/{run['run_id']}/report.json", REPORT)
    facts = {"plan": SUMMARY, "image": "i", "pipeline_execution_arn": EXECUTION}
    notify.handler({"run": run, "kind": "started", "facts": facts}, stack.context)


def end_flow(stack: Stack, run_id: str, status: str = "ABORTED") -> dict[str, Any]:
    ended = event("stepfunctions-execution-aborted", status=status, name=run_id)
    return stop_training.handler(ended, stack.context)


# -- the job of a flow that was ended early


def test_given_the_started_mail_cannot_go_out_then_the_record_knows_the_job_all_the_same(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = starting(stack)
    monkeypatch.setenv("TOPIC_ARN", "arn:aws:sns:us-east-1:123456789012:nowhere")

    with pytest.raises(AwsRequestError):
        tell_started(stack, run)

    record = stack.record(run["run_id"])
    assert (record["pipeline_execution_arn"], record["pipeline_execution_id"]) == (EXECUTION, "a1b2c3d4e5f6")
    assert record["status"] == "STARTING"


def test_given_a_start_is_told_twice_then_its_quote_counts_once(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    run = starting(stack)
    tell_started(stack, run)
    tell_started(stack, run)
    assert published(capsys, "QuotedUsd") == [SUMMARY["estimated_cost_usd"]]
    assert len(stack.mails()) == 1


def test_given_sagemakers_answer_was_lost_then_the_flow_stops_what_carries_the_runs_name(
    stack: Stack, sagemaker: Stubber
) -> None:
    run = starting(stack)
    finds(sagemaker, run["run_id"])
    expects_stop(sagemaker)

    stopped = stop_training.handler({"run": run, "pipeline_execution_arn": ""}, stack.context)

    assert stopped["stopped"] is True
    sagemaker.assert_no_pending_responses()


def test_given_the_flow_ended_before_it_watched_then_its_job_is_stopped(
    stack: Stack, sagemaker: Stubber
) -> None:
    run = starting(stack)
    tell_started(stack, run)
    expects_stop(sagemaker)

    assert end_flow(stack, run["run_id"])["stopped"] is True
    sagemaker.assert_no_pending_responses()


def test_given_the_flow_ended_before_the_record_knew_its_job_then_it_is_found_by_its_name(
    stack: Stack, sagemaker: Stubber
) -> None:
    run = starting(stack)
    finds(sagemaker, run["run_id"])
    expects_stop(sagemaker)

    assert end_flow(stack, run["run_id"])["stopped"] is True

    sagemaker.assert_no_pending_responses()
    (mail,) = stack.mails()
    assert mail["MessageAttributes"]["status"]["Value"] == "STOPPED"


def test_given_no_execution_of_that_name_then_only_the_mail_goes_out(
    stack: Stack, sagemaker: Stubber
) -> None:
    run = starting(stack)
    finds(sagemaker, None)

    assert end_flow(stack, run["run_id"])["stopped"] is False
    assert len(stack.mails()) == 1


def test_given_the_flow_never_came_to_start_a_job_then_sagemaker_is_not_asked(
    stack: Stack, sagemaker: Stubber
) -> None:
    assert end_flow(stack, planned(stack)["run_id"])["stopped"] is False
    assert len(stack.mails()) == 1


@pytest.mark.parametrize("status", ["RUNNING", "PENDING_REDRIVE"])
def test_given_an_execution_that_goes_on_then_nothing_is_stopped(
    stack: Stack, sagemaker: Stubber, status: str
) -> None:
    run = starting(stack)
    assert end_flow(stack, run["run_id"], status)["run_id"] is None
    assert stack.record(run["run_id"])["status"] == "STARTING"


# -- SageMaker refuses to stop


@pytest.mark.parametrize(("then", "stopped"), [("Succeeded", False), ("Stopped", False), ("Stopping", True)])
def test_given_the_job_ended_while_it_was_to_be_stopped_then_the_refusal_is_no_error(
    stack: Stack, sagemaker: Stubber, then: str, stopped: bool
) -> None:
    describes(sagemaker, "Executing")
    sagemaker.add_client_error("stop_pipeline_execution", "ValidationException")
    describes(sagemaker, then)
    assert stop_training.handler(THE_FLOW_STOPS, stack.context)["stopped"] is stopped


def test_given_the_job_goes_on_after_a_refusal_then_that_is_an_error(
    stack: Stack, sagemaker: Stubber
) -> None:
    describes(sagemaker, "Executing")
    sagemaker.add_client_error("stop_pipeline_execution", "ValidationException")
    describes(sagemaker, "Executing")
    with pytest.raises(AwsRequestError, match="ValidationException"):
        stop_training.handler(THE_FLOW_STOPS, stack.context)


def test_given_no_such_execution_then_nothing_is_left_to_stop(stack: Stack, sagemaker: Stubber) -> None:
    sagemaker.add_client_error("describe_pipeline_execution", "ResourceNotFound")
    assert stop_training.handler(THE_FLOW_STOPS, stack.context)["stopped"] is False


# -- reconciliation


def flow_is(stubber: Stubber, run: dict[str, Any], status: str) -> None:
    """What DescribeExecution answers about the flow of a run."""
    arn = f"arn:execution:{run['run_id']}"
    if status == "MISSING":
        stubber.add_client_error(
            "describe_execution", "ExecutionDoesNotExist", expected_params={"executionArn": arn}
        )
        return
    described = {
        "executionArn": arn,
        "stateMachineArn": "arn:aws:states:us-east-1:123456789012:stateMachine:flow",
        "status": status,
        "startDate": datetime.now(UTC),
    }
    stubber.add_response("describe_execution", described, {"executionArn": arn})


def reconcile(stack: Stack, executing: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """`executing`: ARN and display name of the pipeline's executions that run."""
    with patch.object(Training, "executing", return_value=list(executing)):
        return reconcile_runs.handler({"source": "aws.scheduler"}, stack.context)


@pytest.mark.parametrize(
    ("status", "recorded", "word"),
    [
        ("ABORTED", "STOPPED", "aborted"),
        ("TIMED_OUT", "FAILED", "out of time"),
        ("FAILED", "FAILED", "without a cause"),
        ("SUCCEEDED", "FAILED", "without a word"),
        ("MISSING", "FAILED", "never started"),
    ],
)
def test_given_a_flow_that_ended_unnoticed_then_its_job_is_stopped_and_one_mail_goes_out(
    stack: Stack,
    at: Callable[[datetime], None],
    sagemaker: Stubber,
    step_functions: Stubber,
    status: str,
    recorded: str,
    word: str,
) -> None:
    run = starting(stack)
    flow_is(step_functions, run, status)
    finds(sagemaker, run["run_id"])
    expects_stop(sagemaker)
    at(datetime.now(UTC) + LATER)

    assert reconcile(stack) == {"looked_at": 1, "ended": [run["run_id"]], "silent": []}
    # Next time there is nothing left to look at.
    assert reconcile(stack) == {"looked_at": 0, "ended": [], "silent": []}

    sagemaker.assert_no_pending_responses()
    record = stack.record(run["run_id"])
    assert record["status"] == recorded
    assert word in record["failure"]["cause"]
    (mail,) = stack.mails()
    assert mail["MessageAttributes"]["status"]["Value"] == recorded


def test_given_a_flow_that_runs_then_it_is_left_alone(
    stack: Stack, at: Callable[[datetime], None], sagemaker: Stubber, step_functions: Stubber
) -> None:
    run = starting(stack)
    flow_is(step_functions, run, "RUNNING")
    at(datetime.now(UTC) + LATER)

    assert reconcile(stack) == {"looked_at": 1, "ended": [], "silent": []}
    assert stack.record(run["run_id"])["status"] == "STARTING"
    assert stack.mails() == []


def test_given_a_run_that_outlasts_its_quote_then_it_is_named_and_counted(
    stack: Stack,
    at: Callable[[datetime], None],
    step_functions: Stubber,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = starting(stack)
    deployment.deployment(None).records.advance(run["run_id"], "TRAINING")
    for _ in range(2):
        flow_is(step_functions, run, "RUNNING")
    at(datetime.now(UTC) + timedelta(minutes=30))
    assert reconcile(stack)["silent"] == []
    assert published(capsys, "SilentRuns") == [0]

    at(datetime.now(UTC) + timedelta(days=2))
    assert reconcile(stack)["silent"] == [run["run_id"]]
    assert published(capsys, "SilentRuns") == [1]


def published(capsys: pytest.CaptureFixture[str], name: str) -> list[float]:
    """The values of a metric in the log since the last look."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    return [value for line in lines for value in line.get(name, ())]


@pytest.mark.parametrize("age", [timedelta(minutes=4), timedelta(days=36)])
def test_given_a_run_that_is_too_young_or_too_old_then_its_flow_is_not_asked_for(
    stack: Stack, at: Callable[[datetime], None], step_functions: Stubber, age: timedelta
) -> None:
    starting(stack)
    at(datetime.now(UTC) + age)
    assert reconcile(stack) == {"looked_at": 0, "ended": [], "silent": []}


def test_given_a_run_that_cannot_be_compared_then_the_others_are_and_the_error_names_it(
    stack: Stack, at: Callable[[datetime], None], step_functions: Stubber
) -> None:
    records = deployment.deployment(None).records
    over, broken, aborted = (planned(stack, f"cats-{number}") for number in range(3))
    records.advance(over["run_id"], "REJECTED")
    records.advance(over["run_id"], "FAILED")
    records.add_notification(over["run_id"], "failed", "m-1")
    step_functions.add_client_error("describe_execution", "InvalidArn", "no ARN")
    flow_is(step_functions, aborted, "ABORTED")
    at(datetime.now(UTC) + LATER)

    with pytest.raises(RunsNotReconciledError, match=r"1 of 2 runs .*cats-1: .*InvalidArn") as raised:
        reconcile(stack)

    assert "cats-2" not in raised.value.cause
    assert stack.record(aborted["run_id"])["status"] == "STOPPED"
    assert stack.record(broken["run_id"])["status"] == "PLANNED"
    assert len(stack.mails()) == 1


def test_given_a_job_that_goes_on_after_its_runs_end_then_it_is_stopped_and_no_other(
    stack: Stack, at: Callable[[datetime], None], sagemaker: Stubber
) -> None:
    """A flow that is aborted while it starts its pipeline execution leaves one that nobody knew of."""
    records = deployment.deployment(None).records
    over, under_way = starting(stack), starting(stack, "dogs-0123456789ab")
    records.advance(over["run_id"], "STOPPED")
    expects_stop(sagemaker)
    other = f"{EXECUTION[:-12]}bbbbbbbbbbbb"

    reconcile(
        stack, [(EXECUTION, over["run_id"]), (other, under_way["run_id"]), (other, "execution-1700000000")]
    )

    sagemaker.assert_no_pending_responses()


def test_executions_that_run_are_listed_over_all_pages(stack: Stack, sagemaker: Stubber) -> None:
    finds(sagemaker, "cats-1", status="Executing")
    assert deployment.deployment(None).training.executing(PIPELINE.rpartition("/")[2]) == [
        (EXECUTION, "cats-1")
    ]


VERIFIED = {
    "model": {"uri": "s3://b/m.safetensors", "size": 9, "sha256": "ab", "tensors": 2},
    "provenance_uri": "s3://b/provenance.json",
    "samples": [],
    "rehearsal": False,
}


def verified(stack: Stack) -> str:
    """A run whose model is proved, and the flow's last word is still to come."""
    run_id: str = starting(stack)["run_id"]
    records = deployment.deployment(None).records
    records.advance(run_id, "VERIFYING")
    records.note(run_id, {"verified": VERIFIED, "observation": {"seconds": 60}})
    return run_id


def test_given_a_proved_model_and_a_flow_that_could_not_tell_then_the_run_is_completed_and_told(
    stack: Stack, sagemaker: Stubber
) -> None:
    run_id = verified(stack)
    finds(sagemaker, None)

    end_flow(stack, run_id, "FAILED")

    record = stack.record(run_id)
    assert (record["status"], record["model"]["size"], record["told"]) == ("COMPLETED", 9, "completed")
    (mail,) = stack.mails()
    assert "s3://b/m.safetensors" in mail["Message"]


def test_given_a_proved_model_and_a_person_who_aborts_then_the_run_is_stopped(
    stack: Stack, sagemaker: Stubber
) -> None:
    run_id = verified(stack)
    finds(sagemaker, None)
    end_flow(stack, run_id, "ABORTED")
    assert stack.record(run_id)["status"] == "STOPPED"


@pytest.mark.parametrize("status", ["COMPLETED", "REJECTED", "REPEATED", "FAILED", "STOPPED"])
def test_given_an_end_that_nobody_was_told_then_the_reconcile_tells_it_once(
    stack: Stack,
    at: Callable[[datetime], None],
    sagemaker: Stubber,
    step_functions: Stubber,
    status: str,
) -> None:
    # Given a run whose status is final, and a mail that never went out
    run = {"run_id": verified(stack)} if status == "COMPLETED" else planned(stack)
    run_id = run["run_id"]
    records = deployment.deployment(None).records
    stack.put(f"runs/{run_id}/report.json", REPORT)
    facts = {
        "COMPLETED": {"model": VERIFIED["model"]},
        "REPEATED": {"repeats": run_id},
        "FAILED": {"failure": {"cause": "The disk was full.", "remedy": "Free it."}},
    }
    if status == "REJECTED":
        stack.dynamodb.update_item(
            TableName="runs",
            Key={"run_id": {"S": run_id}},
            UpdateExpression="SET #s = :s",
            ExpressionAttributeNames={"#s": "status"},
            ExpressionAttributeValues={":s": {"S": "INSPECTING"}},
        )
    assert records.advance(run_id, status, facts.get(status, {})).outcome == "changed"
    if status == "COMPLETED":
        finds(sagemaker, None)
    flow_is(step_functions, run, "FAILED")
    at(datetime.now(UTC) + LATER)

    # When the schedule comes, twice
    assert reconcile(stack)["ended"] == [run_id]
    assert reconcile(stack)["ended"] == []

    # Then one mail told what the record says
    (mail,) = stack.mails()
    assert mail["MessageAttributes"]["status"]["Value"] == status == stack.record(run_id)["status"]
    if status == "FAILED":
        assert "The disk was full." in mail["Message"]


def test_given_a_run_that_was_given_up_then_a_late_delivery_of_its_event_starts_nothing(
    stack: Stack,
) -> None:
    key = "datasets/cats/manifest.json"
    version = stack.put(key, b'{"version": 1}')
    run_id = planned(stack, run_id_of(BUCKET, key, version))["run_id"]
    deployment.deployment(None).records.advance(run_id, "FAILED")

    answer = validate_manifest.handler(dropped(key, version), stack.context)

    assert answer == {"status": "FAILED", "run_id": run_id}
    assert stack.executions() == []
