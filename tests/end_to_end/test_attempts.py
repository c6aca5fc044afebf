"""AWS has no instance at first: the run waits and climbs its ladder (how it ends otherwise: tests/faults)."""

from __future__ import annotations

from typing import Any

from tests.embedded_aws.setting_faults import Fault, faults
from tests.end_to_end.journey import Stack, dataset, quick_manifest

FIRST, SECOND = "ml.g6.2xlarge", "ml.g5.2xlarge"
NO_CAPACITY = {"fail": "CapacityError: Unable to provision requested ML compute capacity."}


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
