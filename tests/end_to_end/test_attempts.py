"""AWS has no instance at first: the run waits, climbs its ladder, or says which quota to raise."""

from __future__ import annotations

from typing import Any

from tests.embedded_aws.setting_faults import Fault, faults
from tests.end_to_end.journey import Stack, dataset, eventually, quick_manifest

FIRST, SECOND = "ml.g6.2xlarge", "ml.g5.2xlarge"
NO_CAPACITY = {"fail": "CapacityError: Unable to provision requested ML compute capacity."}


def no_quota(name: str) -> dict[str, str]:
    words = (
        f"The account-level service limit '{name}' is 0 Instances, with current utilization of 0 Instances"
    )
    return {"code": "ResourceLimitExceeded", "message": words}


def ladder(stack: Stack, name: str, **keys: Any) -> str:
    return stack.drop(name, dataset(3), quick_manifest(instance_types=[FIRST, SECOND], **keys))


def instances(stack: Stack, run_id: str) -> list[tuple[str, bool]]:
    jobs = sorted(stack.training_jobs(run_id), key=lambda job: job["CreationTime"])
    return [
        (job["ResourceConfig"]["InstanceType"], bool(job.get("EnableManagedSpotTraining"))) for job in jobs
    ]


def kinds(stack: Stack, run_id: str) -> list[str]:
    return sorted(mail["X-Attribute-kind"] for mail in stack.mails(run_id))


def test_lack_of_capacity_is_waited_for_and_then_leads_to_the_next_instance(stack: Stack) -> None:
    # Given no spot capacity of the first type for as long as a rung is tried, nor of the second
    lacking = [
        Fault("job", (name, '"EnableManagedSpotTraining": true'), NO_CAPACITY, times=10)
        for name in (FIRST, SECOND)
    ]
    with faults(stack.endpoint, *lacking):
        record = stack.record(ladder(stack, "climbs", spot=True))
    # Then it was trained on demand at last
    assert record["status"] == "COMPLETED", record
    assert instances(stack, record["run_id"]) == [
        (FIRST, True),
        (FIRST, True),
        (SECOND, True),
        (SECOND, True),
        (FIRST, False),
    ]
    assert [tried["lack"] for tried in record["attempts"]] == ["capacity"] * 4
    assert "WAITING_FOR_CAPACITY" in [change["status"] for change in record["history"]]
    # One mail a rung says that it waits, one a rung that it starts, and one tells the end
    assert kinds(stack, record["run_id"]) == [
        "completed",
        "started",
        "started",
        "started",
        "waiting",
        "waiting",
    ]
    assert (record["plan"]["instance_type"], record["plan"]["spot"]) == (FIRST, False)


def test_quotas_of_zero_are_not_waited_for_and_the_mail_names_them_all(stack: Stack) -> None:
    refused = [
        Fault("job-request", (name,), no_quota(f"{name} for training job usage"), times=10)
        for name in (FIRST, SECOND)
    ]
    with faults(stack.endpoint, *refused):
        record = stack.record(ladder(stack, "no-quota"))
    assert record["status"] == "FAILED"
    assert stack.training_jobs(record["run_id"]) == []
    body = stack.mail(record["run_id"], "failed")
    for name in (FIRST, SECOND):
        assert f"'{name} for training job usage'" in body
    assert "waiting" not in kinds(stack, record["run_id"])
    assert stack.execution_ended(record) == "FAILED"


def test_a_run_that_waits_for_capacity_can_be_given_up(stack: Stack) -> None:
    lacking = Fault("job", (FIRST,), NO_CAPACITY, times=10)
    with faults(stack.endpoint, lacking):
        manifest = quick_manifest(instance_types=[FIRST])
        prefix = stack.drop("given-up", dataset(3), manifest)
        record = stack.record(prefix, {"WAITING_FOR_CAPACITY"})
        stack.client("stepfunctions").stop_execution(executionArn=record["execution_arn"])
        record = stack.record(prefix)
    assert record["status"] == "STOPPED"
    eventually(lambda: stack.mails(record["run_id"], "stopped"), "the mail")


def test_a_job_that_its_time_limit_stopped_is_told_as_stopped_by_it(stack: Stack) -> None:
    with faults(stack.endpoint, Fault("job", (FIRST,), {"stop": "MaxRuntimeExceeded"})):
        record = stack.record(stack.drop("out-of-time", dataset(3), quick_manifest(instance_types=[FIRST])))
    assert record["status"] == "STOPPED"
    assert "time limit" in stack.mail(record["run_id"], "stopped")


def test_success_without_an_artifact_is_a_failure(stack: Stack) -> None:
    with faults(stack.endpoint, Fault("job", (FIRST,), {"complete": True})):
        record = stack.record(stack.drop("no-artifact", dataset(3), quick_manifest(instance_types=[FIRST])))
    assert record["status"] == "FAILED"
    stack.mail(record["run_id"], "failed")
