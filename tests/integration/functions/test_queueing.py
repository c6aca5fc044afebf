"""Many drops at a time: no more than the limit train, none is lost, none is started twice."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import notify
import pytest
import stop_training
import take_slot

from fine_tuning.aws import deployment, sdk
from fine_tuning.steps import queueing
from tests.functions_data import RUN, event
from tests.integration.functions import quick_dynamodb
from tests.integration.functions.conftest import ACCOUNT, ENVIRONMENT, REGION, Stack
from tests.integration.functions.runs import planned

LIMIT = int(ENVIRONMENT["MAX_RUNS_IN_FLIGHT"])


@pytest.fixture
def answered(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The task tokens that were answered."""
    tokens: list[str] = []

    def send(taskToken: str, output: str) -> None:  # noqa: N803
        tokens.append(taskToken)

    monkeypatch.setattr(sdk.client("stepfunctions"), "send_task_success", send)
    return tokens


def ask(stack: Stack, run: dict[str, Any], token: str | None = None) -> dict[str, Any]:
    return take_slot.handler({"run": run, "token": token or f"t-{run['run_id']}"}, stack.context)


def fail(stack: Stack, run: dict[str, Any]) -> None:
    facts = {"stage": "WatchTraining", "error": "x", "cause": "y"}
    notify.handler({"run": run, "kind": "failed", "facts": facts}, stack.context)


def many(stack: Stack, number: int) -> list[dict[str, Any]]:
    """Planned runs, dropped one after the other."""
    begin, runs, records = datetime.now(UTC), [], deployment.deployment(None).records
    for place in range(number):
        run = replace(RUN, run_id=f"cats-{place:04}")
        records.create(run, f"arn:execution:{run.run_id}")
        created = (begin + timedelta(seconds=place)).isoformat(timespec="milliseconds")
        records.advance(run.run_id, "PLANNED", {"created_at": created})
        runs.append(run.as_payload())
    return runs


def test_a_free_slot_is_taken_at_once(stack: Stack, answered: list[str]) -> None:
    run = planned(stack)
    assert ask(stack, run)["status"] == "granted"
    record = stack.record(run["run_id"])
    assert (record["status"], answered) == ("STARTING", ["t-cats-0123456789ab"])
    assert "task_token" not in record
    assert stack.mails() == []


def test_who_has_to_wait_is_told_once_and_let_go_on_by_the_one_that_ends(
    stack: Stack, answered: list[str]
) -> None:
    *first, last, later = many(stack, LIMIT + 2)
    for run in first:
        ask(stack, run)
    # Asked again, as after a time-out, with another token
    for token in ("old", "new"):
        assert ask(stack, last, token) == {"status": "waiting", "position": 1}
    assert ask(stack, later)["position"] == 2
    assert stack.record(last["run_id"])["status"] == "WAITING_FOR_SLOT"
    kinds = [mail["MessageAttributes"]["run_id"]["Value"] for mail in stack.mails()]
    assert sorted(kinds) == [last["run_id"], later["run_id"]]

    fail(stack, first[2])
    fail(stack, first[2])

    assert answered[LIMIT:] == ["new"]
    assert stack.record(last["run_id"])["status"] == "STARTING"
    assert stack.record(later["run_id"])["status"] == "WAITING_FOR_SLOT"


@pytest.mark.parametrize("waiting", [True, False])
def test_an_aborted_run_frees_its_slot_or_its_place(stack: Stack, answered: list[str], waiting: bool) -> None:
    runs = many(stack, LIMIT + 2)
    for run in runs:
        ask(stack, run)
    aborted = runs[LIMIT if waiting else 0]
    # The run has started no pipeline execution yet that could be looked for.
    deployment.deployment(None).records.note(aborted["run_id"], {"history": []})
    ended = event("stepfunctions-execution-aborted", status="ABORTED", name=aborted["run_id"])
    stop_training.handler(ended, stack.context)
    state = deployment.deployment(None).slots.read()
    assert len(state.holders) == LIMIT
    assert aborted["run_id"] not in {*state.holders, *state.queue}
    assert state.order() == [runs[LIMIT + 1]["run_id"]][: 1 if waiting else None]


def test_what_a_function_that_died_has_left_is_mended(stack: Stack, answered: list[str]) -> None:
    runs = many(stack, LIMIT + 1)
    for run in runs:
        ask(stack, run)
    using = deployment.deployment(None)
    # The first has ended, but whoever told so died before the slot was freed.
    using.records.advance(runs[0]["run_id"], "FAILED")
    # The last was given it, but whoever did died before its token was answered.
    using.slots.release(runs[0]["run_id"])
    using.records.advance(runs[-1]["run_id"], "STARTING")

    queueing.settle(using.records, using.slots)
    queueing.settle(using.records, using.slots)

    assert answered[LIMIT:] == [f"t-{runs[-1]['run_id']}"]
    assert len(using.slots.read().holders) == LIMIT


def test_a_failing_hand_over_does_not_hide_how_the_run_ended(
    stack: Stack, answered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planned(stack)
    ask(stack, run)
    monkeypatch.setattr(queueing, "release", _unavailable)
    fail(stack, run)
    assert stack.record(run["run_id"])["status"] == "FAILED"
    assert len(stack.mails()) == 1


def _unavailable(*_: object) -> None:
    raise queueing.FineTuningError("DynamoDB is down.", "Wait.")


def test_two_hundred_drops_at_once_start_no_more_than_the_limit_lose_none_and_repeat_none(
    stack: Stack, answered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_dynamodb.install(monkeypatch, ACCOUNT, REGION)
    runs = many(stack, 200)
    shuffled = random.Random(7).sample(runs, len(runs))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda run: ask(stack, run), shuffled))
    using, order = deployment.deployment(None), [run["run_id"] for run in runs]
    state = using.slots.read()
    assert len(state.holders) == LIMIT
    assert len(state.queue) == 200 - LIMIT
    assert state.order() == [name for name in order if name not in state.holders]
    assert len(answered) == LIMIT

    def end(name: str) -> None:
        using.records.advance(name, "FAILED")
        queueing.leave(name, using.records, using.slots)

    while state.holders:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(end, sorted(state.holders)))
        state = using.slots.read()
        assert len(state.holders) <= LIMIT

    assert sorted(answered) == sorted(f"t-{name}" for name in order)
    assert not state.queue
    # They were served in the order of their drops, but for the few of one round, which end at the same time.
    places = [order.index(token.removeprefix("t-")) for token in answered[LIMIT:]]
    waited = sorted(places)
    assert all(abs(places.index(place) - number) <= LIMIT for number, place in enumerate(waited))
    assert {stack.record(name)["status"] for name in order} == {"FAILED"}
