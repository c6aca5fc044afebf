"""What must hold of every run, whatever went wrong: the one place where it is written down.

docs/reliability.md says the same in words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from fine_tuning import statuses

ENDED_JOB = frozenset({"Completed", "Failed", "Stopped"})
ENDED_EXECUTION = frozenset({"Succeeded", "Failed", "Stopped"})


@dataclass(frozen=True)
class Evidence:
    """What is seen of a run after its end, from outside.

    Attributes:
        records: of the dataset; there must be one.
        mails: the kinds of the mails that were delivered for the run, in order.
        jobs, executions: statuses of its training jobs and of its pipeline executions.
        flow: status of its state machine execution.
        model_size: bytes of the object that the record calls its model; None where there is none.
        before, after: key and version → ETag of everything in the dataset's folder, before and after the run.
    """

    records: Sequence[Mapping[str, Any]]
    mails: Sequence[str]
    jobs: Sequence[str] = ()
    executions: Sequence[str] = ()
    flow: str | None = None
    model_size: int | None = None
    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)


def violations(seen: Evidence, expected: frozenset[str], most_mails: int = 1, rungs: int = 1) -> list[str]:
    """Every invariant that does not hold, in words; none where the run came to a true end.

    Args:
        expected: the statuses that would be true of this run.
        most_mails: final mails that are allowed; 2 only where the outcome of Publish itself was lost.
        rungs: instances that are tried; a start and a wait are told once for each.
    """
    if len(seen.records) != 1:
        return [f"{len(seen.records)} records instead of one"]
    record = seen.records[0]
    return [
        *_of_the_end(record, seen, expected),
        *_of_the_history(record),
        *_of_the_mails(record["status"], seen.mails, most_mails, rungs),
        *(f"a training job is still {status}" for status in seen.jobs if status not in ENDED_JOB),
        *(
            f"a pipeline execution is still {status}"
            for status in seen.executions
            if status not in ENDED_EXECUTION
        ),
        *_of_the_dataset(seen.before, seen.after),
    ]


def is_over(seen: Evidence) -> bool:
    """Whether nothing moves any more: the record is final, somebody was told, and nothing runs."""
    return (
        len(seen.records) == 1
        and statuses.is_final(seen.records[0]["status"])
        and any(kind in statuses.OF_MAIL for kind in seen.mails)
        and seen.flow != "RUNNING"
        and ENDED_JOB.issuperset(seen.jobs)
        and ENDED_EXECUTION.issuperset(seen.executions)
    )


def _of_the_end(record: Mapping[str, Any], seen: Evidence, expected: frozenset[str]) -> list[str]:
    status = record["status"]
    found = []
    if not statuses.is_final(status):
        found.append(f"the record is still {status}")
    elif status not in expected:
        found.append(f"the record says {status}, which is not true: {' or '.join(sorted(expected))} is")
    if seen.flow == "RUNNING":
        found.append("the flow still runs")
    if status == "COMPLETED":
        size = (record.get("model") or {}).get("size")
        if size is None or size != seen.model_size:
            found.append(f"the record tells of a model of {size} bytes, the bucket has {seen.model_size}")
        if "Completed" not in seen.jobs:
            found.append("a run is COMPLETED without a completed job")
    elif status in ("FAILED", "STOPPED"):
        failure = record.get("failure") or {}
        if not failure.get("cause") or not failure.get("remedy"):
            found.append(f"the record says neither why nor what to do: {failure}")
    return found


def _of_the_history(record: Mapping[str, Any]) -> list[str]:
    history = [change["status"] for change in record["history"]]
    moments = [change["at"] for change in record["history"]]
    found = [
        f"{before} was followed by {after}"
        for before, after in pairwise(history)
        if before not in statuses.predecessors(after)
    ]
    if history[-1] != record["status"]:
        found.append(f"the history ends with {history[-1]}, the status is {record['status']}")
    if moments != sorted(moments):
        found.append("the history goes back in time")
    return found


def _of_the_mails(status: str, kinds: Sequence[str], most: int, rungs: int) -> list[str]:
    final = [kind for kind in kinds if kind in statuses.OF_MAIL]
    found = []
    if not 1 <= len(final) <= most:
        found.append(f"{len(final)} final mails ({', '.join(final) or 'none'}) instead of 1 to {most}")
    found += [
        f"a mail says {kind}, the record {status}" for kind in final if statuses.OF_MAIL[kind] != status
    ]
    repeated = [
        kind for kind, times in Counter(kinds).items() if kind not in final and times > max(most, rungs)
    ]
    found += [f"the mail {kind} came too often" for kind in repeated]
    return found


def _of_the_dataset(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    touched = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return [f"{key} of the dataset was touched" for key in touched]
