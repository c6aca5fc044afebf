"""Many drops at once: no more than the limit train at a time, each once, in the order of the drops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.end_to_end.journey import Stack, dataset, eventually, quick_manifest, variable

LIMIT = 2


@contextmanager
def limited(stack: Stack) -> Iterator[None]:
    """A smaller limit than the stack's, in every function that has one."""
    with variable(stack, "MAX_RUNS_IN_FLIGHT", str(LIMIT)) as functions:
        assert functions == 4
        yield


def span(stack: Stack, run_id: str) -> tuple[float, float]:
    (job,) = stack.training_jobs(run_id)
    return job["CreationTime"].timestamp(), job["TrainingEndTime"].timestamp()


def most_at_once(spans: list[tuple[float, float]]) -> int:
    return max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans)


def test_a_burst_of_drops_trains_a_few_at_a_time_and_an_aborted_one_frees_its_slot(stack: Stack) -> None:
    files = dataset(3)
    with limited(stack):
        # Given one that trains for long, so that the others have to take turns with what is left
        long = quick_manifest(config={**quick_manifest()["config"], "max_train_steps": 40_000})
        occupier = stack.drop("burst-long", files, long)
        held = stack.record(occupier, {"TRAINING"})
        # When several are dropped at once
        prefixes = [
            stack.drop(f"burst-{number}", files, quick_manifest(trigger_word=f"t{number}"))
            for number in range(6)
        ]
        records = [stack.record(prefix, seconds=480) for prefix in prefixes]
        # Then each was trained, once, beside the long one
        assert [record["status"] for record in records] == ["COMPLETED"] * 6, records
        spans = [span(stack, record["run_id"]) for record in records]
        assert most_at_once(spans) == LIMIT - 1
        waited = [record for record in records if "WAITING_FOR_SLOT" in statuses(record)]
        assert len(waited) >= 4
        assert [kinds(stack, record).count("waiting") for record in waited] == [1] * len(waited)
        # And when the long one is aborted, its slot is free for two at a time again
        stack.client("stepfunctions").stop_execution(executionArn=held["execution_arn"])
        assert stack.record(occupier)["status"] == "STOPPED"
        eventually(lambda: not slots(stack)["holders"], "free slots")
    assert slots(stack)["queue"] == {}


def test_who_waits_for_a_slot_can_give_up(stack: Stack) -> None:
    long = quick_manifest(config={**quick_manifest()["config"], "max_train_steps": 40_000})
    with limited(stack):
        running = [
            stack.drop(f"queue-{number}", dataset(3), {**long, "licence": str(number)}) for number in range(2)
        ]
        held = [stack.record(prefix, {"TRAINING"}) for prefix in running]
        prefix = stack.drop("queue-waits", dataset(3), quick_manifest(licence="w"))
        waiting = stack.record(prefix, {"WAITING_FOR_SLOT"})
        assert "as this stack allows" in stack.mail(waiting["run_id"], "waiting")
        for record in (waiting, *held):
            stack.client("stepfunctions").stop_execution(executionArn=record["execution_arn"])
        assert stack.record(prefix)["status"] == "STOPPED"
        assert stack.training_jobs(waiting["run_id"]) == []
        eventually(lambda: not slots(stack)["holders"] and not slots(stack)["queue"], "free slots")


def slots(stack: Stack) -> dict[str, Any]:
    item: dict[str, Any] = stack.table.get_item(Key={"run_id": "slots"}, ConsistentRead=True)["Item"]
    return item


def statuses(record: dict[str, Any]) -> list[str]:
    return [change["status"] for change in record["history"]]


def kinds(stack: Stack, record: dict[str, Any]) -> list[str]:
    return [mail["X-Attribute-kind"] for mail in stack.mails(record["run_id"])]
