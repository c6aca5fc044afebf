"""Whatever comes in whatever order, often or twice: the run's record stays true (a property, on moto)."""

from __future__ import annotations

import contextlib
import json
from itertools import pairwise
from typing import Any

import notify
import pytest
import stop_training
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fine_tuning import statuses
from fine_tuning.aws import deployment
from fine_tuning.errors import FineTuningError
from tests.functions_data import event
from tests.integration.functions.conftest import Stack
from tests.integration.functions.runs import planned

VERIFIED = {
    "model": {"uri": "s3://b/m.safetensors", "size": 9, "sha256": "ab", "tensors": 2},
    "provenance_uri": "s3://b/provenance.json",
    "samples": [],
    "rehearsal": False,
}
OBSERVED = {"seconds": 60, "status": "Stopped", "reason": "by a person"}
FAILURE = {"stage": "PlanRun", "error": "DiskFull", "cause": "The disk was full."}
TOLD = {
    "completed": {**VERIFIED, "observation": OBSERVED},
    "failed": FAILURE,
    "stopped": OBSERVED,
    "rejected": {},
}

advances = st.tuples(st.just("advance"), st.sampled_from([*statuses._IN_ORDER, "WAITING_FOR_CAPACITY"]))
tellings = st.tuples(st.just("tell"), st.sampled_from(sorted(TOLD)))
endings = st.tuples(st.just("end"), st.sampled_from(["ABORTED", "FAILED", "TIMED_OUT"]))
proofs = st.tuples(st.just("note"), st.just("verified"))
deeds = st.lists(st.one_of(advances, advances, tellings, endings, proofs), min_size=1, max_size=10)


def do(stack: Stack, run: dict[str, Any], deed: tuple[str, str]) -> None:
    kind, what = deed
    records = deployment.deployment(None).records
    # A step that the record refuses fails by itself; the flow tries it again or tells.
    with contextlib.suppress(FineTuningError):
        if kind == "advance":
            records.advance(run["run_id"], what)
        elif kind == "note":
            records.note(run["run_id"], {"verified": VERIFIED, "observation": OBSERVED})
        elif kind == "tell":
            notify.handler({"run": run, "kind": what, "facts": TOLD[what]}, stack.context)
        else:
            ended = event("stepfunctions-execution-aborted", status=what, name=run["run_id"])
            stop_training.handler(ended, stack.context)


@pytest.fixture(autouse=True)
def no_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What SageMaker would be asked is no part of the record."""
    from fine_tuning.aws.training import Training

    monkeypatch.setattr(Training, "find", lambda self, pipeline, name: None)
    monkeypatch.setattr(Training, "stop", lambda self, arn: False)


def test_a_record_stays_true_in_any_order(stack: Stack) -> None:
    number = 0

    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(deeds)
    def stays_true(order: list[tuple[str, str]]) -> None:
        nonlocal number
        number += 1
        run = planned(stack, f"cats-{number:012}")
        stack.put(f"runs/{run['run_id']}/report.json", json.dumps({"findings": []}).encode())
        stack.mails()
        history: list[dict[str, Any]] = []
        for deed in order:
            do(stack, run, deed)
            record = stack.record(run["run_id"])
            # Nothing that was written changes: the history only grows, and only forward.
            assert record["history"][: len(history)] == history
            history = record["history"]
        way = [change["status"] for change in history]
        assert all(before in statuses.predecessors(after) for before, after in pairwise(way))
        assert way[-1] == record["status"]
        assert sum(statuses.is_final(status) for status in way) <= 1

        # And whatever happened before, the end of the flow leaves a final record and one final mail that agrees.
        do(stack, run, ("end", "FAILED"))
        do(stack, run, ("end", "FAILED"))
        record = stack.record(run["run_id"])
        kinds = [mail["MessageAttributes"]["kind"]["Value"] for mail in stack.mails()]
        assert statuses.is_final(record["status"])
        assert [statuses.OF_MAIL[kind] for kind in kinds if kind in statuses.OF_MAIL] == [record["status"]]

    stays_true()
