"""Every way in which SageMaker may end a training, and what the flow makes of it."""

from __future__ import annotations

from typing import Any

import judge_ending
import notify
import pytest
from botocore.stub import Stubber

from fine_tuning.attempts import Attempt, cost_of_earlier
from fine_tuning.aws import deployment
from fine_tuning.run import Run
from tests.integration.functions.conftest import Stack
from tests.integration.functions.runs import REPORT, SUMMARY, starting
from tests.integration.functions.sagemaker_answers import EXECUTION, looks
from tests.integration.functions.test_training import watch
from tests.unit.functions.test_attempts import LADDER, REFUSED, rung

NEXT = f"{EXECUTION[:-12]}bbbbbbbbbbbb"
SEEN = {
    "status": "Failed",
    "terminal": True,
    "outcome": "failed",
    "training_job": "j",
    "secondary_status": "Failed",
    "step": 30,
    "total": 60,
    "seconds": 600,
    "cost_usd": 0.2,
    "reason": "why",
}


def judge(
    stack: Stack,
    run: dict[str, Any],
    observation: dict[str, Any] | None,
    attempt: dict[str, Any] | None = None,
    ladder: list[dict[str, Any]] | None = None,
    arn: str = EXECUTION,
    **failure: Any,
) -> dict[str, Any]:
    cause = (observation or {}).get("reason") or ""
    told = {"stage": "WatchTraining", "error": "TrainingFailed", "cause": cause, **failure}
    payload = {
        "run": run,
        "ladder": ladder or LADDER,
        "attempt": attempt or Attempt().as_document(),
        "pipeline_execution_arn": arn,
        "failure": told | ({"observation": observation} if observation else {}),
        "budget_usd": None,
    }
    return judge_ending.handler(payload, stack.context)


def training(stack: Stack) -> dict[str, Any]:
    run = starting(stack)
    records = deployment.deployment(None).records
    records.advance(run["run_id"], "TRAINING", {"pipeline_execution_arn": EXECUTION})
    return run


def test_given_no_capacity_then_the_run_waits_and_its_record_says_so(stack: Stack) -> None:
    run = training(stack)
    lacking = {**SEEN, "reason": "CapacityError: none", "step": None, "seconds": None, "cost_usd": None}

    answer = judge(stack, run, lacking)

    assert (answer["decision"], answer["wait_seconds"]) == ("again", 300)
    assert (answer["attempt"]["number"], answer["attempt"]["rung"]) == (2, 0)
    assert answer["waiting"]["reason"] == "capacity"
    record = stack.record(run["run_id"])
    assert record["status"] == "WAITING_FOR_CAPACITY"
    # Nobody must look for the next job at the last one's address.
    assert record["pipeline_execution_arn"] == ""
    (tried,) = record["attempts"]
    assert (tried["lack"], tried["pipeline_execution_arn"]) == ("capacity", EXECUTION)
    # And it may train again.
    assert deployment.deployment(None).records.advance(run["run_id"], "TRAINING").outcome == "changed"


def test_given_the_judgement_is_repeated_then_it_says_the_same_and_loses_no_money(stack: Stack) -> None:
    run = training(stack)
    lacking = {**SEEN, "reason": "CapacityError: none"}
    first = judge(stack, run, lacking)
    before = stack.record(run["run_id"])
    assert judge(stack, run, lacking) == first
    assert stack.record(run["run_id"])["attempts"] == before["attempts"]
    assert cost_of_earlier(stack.record(run["run_id"])) == SEEN["cost_usd"]


def test_given_a_judgement_that_comes_late_then_the_next_attempt_stays_known(stack: Stack) -> None:
    run, records = training(stack), deployment.deployment(None).records
    lacking = {**SEEN, "reason": "CapacityError: none"}
    again = judge(stack, run, lacking)["attempt"]
    next_one = {"pipeline_execution_arn": NEXT, "task_token": "t2"}
    assert records.advance(run["run_id"], "TRAINING", next_one, again["number"]).outcome == "changed"

    judge(stack, run, lacking)

    record = stack.record(run["run_id"])
    assert (record["status"], record["pipeline_execution_arn"]) == ("TRAINING", NEXT)


def test_given_an_internal_error_of_sagemaker_then_the_run_goes_on_from_its_checkpoint(stack: Stack) -> None:
    run = training(stack)
    broken = {**SEEN, "reason": "InternalServerError: We encountered an internal error. Please try again."}
    answer: dict[str, Any] = {"attempt": None}
    for wait in (300, 600):
        answer = judge(stack, run, broken, answer["attempt"])
        assert (answer["decision"], answer["wait_seconds"]) == ("again", wait)
        assert answer["rung"]["instance_type"] == LADDER[0]["instance_type"]
        notify.handler({"run": run, "kind": "waiting", "facts": answer["waiting"]}, stack.context)
    (mail,) = stack.mails()
    assert "last checkpoint" in mail["Message"]

    answer = judge(stack, run, broken, answer["attempt"])

    assert answer["decision"] == "failed"
    assert answer["failure"]["cause"].startswith(
        "SageMaker failed by itself. Tried: ml.g6.2xlarge (spot) 3 times"
    )


def test_given_a_failure_told_in_two_ways_then_one_mail_goes_out(stack: Stack) -> None:
    run = starting(stack)
    notify.handler({"run": run, "kind": "failed", "facts": {"cause": "The disk was full."}}, stack.context)
    told = stack.record(run["run_id"])

    notify.handler({"run": run, "kind": "image-missing", "facts": {}}, stack.context)

    (mail,) = stack.mails()
    assert mail["MessageAttributes"]["kind"]["Value"] == "failed"
    record = stack.record(run["run_id"])
    assert {**record, "updated_at": ""} == {**told, "updated_at": ""}


def test_what_was_quoted_stands_beside_what_was_spent(stack: Stack) -> None:
    run = training(stack)
    answer = judge(stack, run, {**SEEN, "reason": "The loss is NaN."})
    notify.handler({"run": run, "kind": "failed", "facts": answer["failure"]}, stack.context)
    (mail,) = stack.mails()
    assert "Spent: 10 min 00 s, 0.20 USD\nQuoted: 5 min 00 s, 0.26 USD\n" in mail["Message"]


def test_given_the_wait_is_told_twice_then_one_mail_goes_out(stack: Stack) -> None:
    run = training(stack)
    facts = judge(stack, run, {**SEEN, "reason": "CapacityError: none"})["waiting"]
    for _ in range(2):
        notify.handler({"run": run, "kind": "waiting", "facts": facts}, stack.context)
    (mail,) = stack.mails()
    assert "ml.g6.2xlarge (spot)" in mail["Message"]
    assert stack.record(run["run_id"])["status"] == "WAITING_FOR_CAPACITY"


def test_given_quotas_of_zero_up_the_whole_ladder_then_the_mail_names_each(stack: Stack) -> None:
    run = training(stack)
    refused = {**SEEN, "training_job": None, "step": None, "seconds": None, "cost_usd": None}
    refused["reason"] = REFUSED.format(limit=0).replace("ml.g5.8xlarge", "ml.g6.2xlarge")
    ladder = [LADDER[0], rung("ml.g6.2xlarge")]
    first = judge(stack, run, refused, ladder=ladder)
    assert (first["decision"], first["wait_seconds"], first["attempt"]["rung"]) == ("again", 0, 1)
    refused["reason"] = refused["reason"].replace("for spot ", "for ")

    last = judge(stack, run, refused, first["attempt"], ladder)

    assert last["decision"] == "failed"
    notify.handler({"run": run, "kind": "failed", "facts": last["failure"]}, stack.context)
    (mail,) = stack.mails()
    assert "'ml.g6.2xlarge for spot training job usage'" in mail["Message"]
    assert "'ml.g6.2xlarge for training job usage'" in mail["Message"]
    assert "Tried: ml.g6.2xlarge (spot) once, ml.g6.2xlarge (on demand) once." in mail["Message"]


def test_given_other_jobs_use_the_quota_then_the_run_waits_for_them_on_the_same_rung(stack: Stack) -> None:
    run = training(stack)
    refused = {**SEEN, "training_job": None, "step": None, "seconds": None, "cost_usd": None}
    refused["reason"] = REFUSED.format(limit=1).replace("utilization of 0", "utilization of 1")
    answer: dict[str, Any] = {"attempt": None}
    for wait in (300, 300, 600, 1200, 2400, 3600):
        answer = judge(stack, run, refused, answer["attempt"], LADDER[:1])
        assert (answer["decision"], answer["wait_seconds"], answer["attempt"]["tries"]) == ("again", wait, 1)
        assert answer["rung"]["instance_type"] == LADDER[0]["instance_type"]
        notify.handler({"run": run, "kind": "waiting", "facts": answer["waiting"]}, stack.context)
    (mail,) = stack.mails()
    assert mail["MessageAttributes"]["status"]["Value"] == "WAITING_FOR_QUOTA_IN_USE"
    assert mail["MessageAttributes"]["action"]["Value"] == "none"
    assert "MaxRunsInFlight" in mail["Message"]
    assert stack.record(run["run_id"])["attempts"][-1]["lack"] == "quota-in-use"


def test_given_too_many_pipeline_executions_then_the_start_is_tried_again(stack: Stack) -> None:
    run = starting(stack)
    answer = judge(stack, run, None, stage="StartPipeline", error="SageMaker.ResourceLimitExceededException")
    assert (answer["decision"], answer["wait_seconds"], answer["waiting"]["reason"]) == (
        "again",
        300,
        "quota",
    )


def test_given_a_training_that_failed_by_itself_then_it_is_not_tried_again(stack: Stack) -> None:
    run = training(stack)
    answer = judge(stack, run, {**SEEN, "reason": "The loss is NaN."})
    assert answer["decision"] == "failed"
    assert answer["failure"]["cause"] == "The loss is NaN."
    assert stack.record(run["run_id"])["status"] == "TRAINING"


@pytest.mark.parametrize(
    ("status", "job", "outcome"),
    [
        ("Executing", {}, "running"),
        ("Stopping", {}, "running"),
        ("Succeeded", {"TrainingJobStatus": "Completed", "SecondaryStatus": "Completed"}, "succeeded"),
        ("Failed", {"TrainingJobStatus": "Failed", "SecondaryStatus": "Failed"}, "failed"),
        ("Stopped", {"TrainingJobStatus": "Stopped", "SecondaryStatus": "Stopped"}, "stopped"),
        # What a pipeline makes of a job that was stopped is not documented, so the job decides.
        ("Failed", {"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"}, "stopped"),
        ("Succeeded", {"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxWaitTimeExceeded"}, "stopped"),
    ],
)
def test_the_outcome_of_every_status(
    stack: Stack, sagemaker: Stubber, status: str, job: dict[str, Any], outcome: str
) -> None:
    run = starting(stack)
    looks(sagemaker, status, **job)
    seen = watch(stack, run)
    assert (seen["outcome"], seen["terminal"]) == (outcome, outcome != "running")


@pytest.mark.parametrize(("status", "outcome"), [("CompletedWithFailures", "failed"), ("Paused", "unknown")])
def test_the_outcome_of_statuses_that_the_sdk_does_not_know(
    stack: Stack, sagemaker: Stubber, status: str, outcome: str
) -> None:
    run = starting(stack)
    looks(sagemaker, status)
    assert watch(stack, run)["outcome"] == outcome


@pytest.mark.parametrize(
    ("secondary", "requested", "words"),
    [
        ("Stopped", None, "by a person"),
        ("Stopped", {"by": "deadline"}, "at its deadline"),
        ("Stopped", {"by": "stall"}, "made no step"),
        ("Stopped", {"by": "no-first-step"}, "made no first step within"),
        ("MaxRuntimeExceeded", None, "reached its time limit"),
    ],
)
def test_who_stopped_a_training_is_told(
    stack: Stack, secondary: str, requested: dict[str, str] | None, words: str
) -> None:
    run = training(stack)
    records = deployment.deployment(None).records
    if requested:
        records.note(run["run_id"], {"stop_requested": requested})
    stopped = {
        **SEEN,
        "status": "Stopped",
        "outcome": "stopped",
        "secondary_status": secondary,
        "reason": None,
    }
    answer = judge(stack, run, stopped, ladder=LADDER[:1])
    assert answer["decision"] == "stopped"
    notify.handler({"run": run, "kind": "stopped", "facts": answer["failure"]["observation"]}, stack.context)
    (mail,) = stack.mails()
    assert words in mail["Message"]
    assert f"./dev retry {run['run_id']}" in mail["Message"]
    assert stack.record(run["run_id"])["status"] == "STOPPED"


def test_a_wait_for_spot_capacity_that_ends_the_ladder_is_a_failure_that_says_what_was_tried(
    stack: Stack,
) -> None:
    run = training(stack)
    ended = {
        **SEEN,
        "status": "Stopped",
        "outcome": "stopped",
        "secondary_status": "MaxWaitTimeExceeded",
        "reason": None,
    }
    answer = judge(stack, run, ended, ladder=LADDER[:1])
    assert answer["decision"] == "failed"
    notify.handler({"run": run, "kind": "failed", "facts": answer["failure"]}, stack.context)
    (mail,) = stack.mails()
    assert "Tried: " in mail["Message"]
    assert stack.record(run["run_id"])["status"] == "FAILED"


WAITED = {
    **SEEN,
    "status": "Stopped",
    "outcome": "stopped",
    "secondary_status": "Stopped",
    **dict.fromkeys(("step", "seconds", "cost_usd", "reason")),
}


def given_up(stack: Stack, run: dict[str, Any], arn: str = EXECUTION) -> None:
    """The flow has stopped the attempt because no instance came."""
    requested = {"by": "no-instance", "at": "2026-11-24T12:00:00+00:00", "pipeline_execution_arn": arn}
    deployment.deployment(None).records.note(run["run_id"], {"stop_requested": requested})


def test_given_no_instance_came_in_time_then_the_next_rung_is_tried_and_its_start_says_why(
    stack: Stack,
) -> None:
    run = training(stack)
    stack.put(Run.from_payload(run).report_key, REPORT)
    given_up(stack, run)
    ladder = [rung("ml.p5.4xlarge"), rung("ml.g5.2xlarge")]

    answer = judge(stack, run, WAITED, ladder=ladder)

    assert (answer["decision"], answer["wait_seconds"], answer["attempt"]["rung"]) == ("again", 0, 1)
    assert judge(stack, run, WAITED, ladder=ladder) == answer  # also when it is asked again
    assert [each["lack"] for each in stack.record(run["run_id"])["attempts"]] == ["no-instance"]

    facts = {"plan": {**SUMMARY, **ladder[1]}, "pipeline_execution_arn": NEXT, "attempt": 2}
    notify.handler({"run": run, "kind": "started", "facts": facts}, stack.context)
    (mail,) = stack.mails()
    assert "Tried: ml.p5.4xlarge (on demand) once. SageMaker found no instance" in mail["Message"]


def test_given_no_instance_of_the_last_rung_then_the_mail_says_that_aws_gave_none(stack: Stack) -> None:
    run = training(stack)
    given_up(stack, run)
    last = Attempt(tries=3).as_document()
    answer = judge(stack, run, WAITED, last, ladder=[rung("ml.p5.4xlarge")])
    assert answer["decision"] == "failed"
    notify.handler({"run": run, "kind": "failed", "facts": answer["failure"]}, stack.context)
    (mail,) = stack.mails()
    assert (
        "AWS gave no instance. Tried: ml.p5.4xlarge (on demand) once. SageMaker found no" in mail["Message"]
    )
    assert "name further instance types" in mail["Message"]


def test_given_a_person_stops_a_job_that_waits_then_no_other_rung_is_tried(stack: Stack) -> None:
    run = training(stack)
    ladder = [rung("ml.p5.4xlarge"), rung("ml.g5.2xlarge")]
    assert judge(stack, run, WAITED, ladder=ladder)["decision"] == "stopped"
    # Nor where the flow had given up the attempt before this one.
    given_up(stack, run, NEXT)
    answer = judge(stack, run, WAITED, ladder=ladder)
    assert answer["decision"] == "stopped"
    notify.handler({"run": run, "kind": "stopped", "facts": answer["failure"]["observation"]}, stack.context)
    (mail,) = stack.mails()
    assert "by a person" in mail["Message"]


def test_given_a_job_that_failed_while_it_was_given_up_then_its_own_failure_counts(stack: Stack) -> None:
    run = training(stack)
    given_up(stack, run)
    answer = judge(stack, run, {**SEEN, "reason": "The loss is NaN."})
    assert (answer["decision"], answer["failure"]["cause"]) == ("failed", "The loss is NaN.")
