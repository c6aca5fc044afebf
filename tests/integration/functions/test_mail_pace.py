"""SNS suspends an e-mail subscription that gets more than ten messages a second: a burst is spread out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import notify
import pytest
import take_slot

from fine_tuning.aws import deployment, mail_pace
from fine_tuning.aws.mail_pace import ABSURD, APART, AT_ONCE, PATIENCE, MailPace
from fine_tuning.errors import ServiceUnavailableError, TooManyMailsError
from tests.functions_data import RUN
from tests.integration.functions import quick_dynamodb
from tests.integration.functions.conftest import ACCOUNT, ENVIRONMENT, REGION, Stack

BURST = 200
SNS_LIMIT = 10  # a second


class Clock:
    """Time stands still but for what a test moves; whoever sleeps wakes at its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.woken = 1_800_000_000.0, list[float]()
        monkeypatch.setattr(mail_pace, "time", lambda: self.now)
        monkeypatch.setattr(mail_pace, "sleep", lambda seconds: self.woken.append(self.now + seconds))


@pytest.fixture
def clock(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Clock:
    quick_dynamodb.install(monkeypatch, ACCOUNT, REGION)
    return Clock(monkeypatch)


def most_in_a_second(moments: list[float]) -> int:
    return max(sum(first <= moment < first + 1 for moment in moments) for first in moments)


def fail(stack: Stack, number: int) -> None:
    run, facts = replace(RUN, run_id=f"cats-{number:04}"), {"stage": "PlanRun", "error": "x", "cause": "y"}
    notify.handler({"run": run.as_payload(), "kind": "failed", "facts": facts}, stack.context)


def test_of_two_hundred_ends_at_one_moment_each_is_mailed_and_no_second_sees_ten(
    stack: Stack, clock: Clock
) -> None:
    records, left, rounds = deployment.deployment(None).records, list(range(BURST)), 0
    for number in left:
        records.create(replace(RUN, run_id=f"cats-{number:04}"), "arn:execution")

    while left:
        refused = []
        for number in left:
            try:
                fail(stack, number)
            except TooManyMailsError:
                refused.append(number)
        assert len(refused) < len(left)
        # As the flow does: once more, a while later.
        left, rounds, clock.now = refused, rounds + 1, clock.now + 10

    told = [mail["MessageAttributes"]["run_id"]["Value"] for mail in stack.mails()]
    assert sorted(told) == [f"cats-{number:04}" for number in range(BURST)]
    assert len(clock.woken) == BURST
    assert most_in_a_second(clock.woken) < SNS_LIMIT
    assert max(clock.woken) - min(clock.woken) < 60
    assert rounds < 6


def test_who_has_to_wait_for_a_slot_is_not_told_where_so_many_are(stack: Stack, clock: Clock) -> None:
    records = deployment.deployment(None).records
    for number in range(BURST):
        run = replace(RUN, run_id=f"cats-{number:04}")
        records.create(run, "arn:execution")
        answer = take_slot.handler({"run": run.as_payload(), "token": f"t-{number}"}, stack.context)
        assert answer["status"] in ("granted", "waiting")

    assert most_in_a_second(clock.woken) < SNS_LIMIT
    assert len(stack.mails()) == len(clock.woken) < BURST


def test_who_waits_for_a_slot_does_not_wait_for_the_mail_of_who_had_it(stack: Stack, clock: Clock) -> None:
    using = deployment.deployment(None)
    using.records.create(replace(RUN, run_id="cats-0000"), "arn:execution")
    run = replace(RUN, run_id="cats-0000").as_payload()
    assert take_slot.handler({"run": run, "token": "t"}, stack.context)["status"] == "granted"
    pace = MailPace(ENVIRONMENT["IDEMPOTENCY_TABLE_NAME"])
    for _ in range(PATIENCE // APART + 1):
        pace.wait_for_turn()

    with pytest.raises(TooManyMailsError):
        fail(stack, 0)

    assert using.slots.read().holders == frozenset()


def test_a_run_by_itself_is_told_at_once(stack: Stack, clock: Clock) -> None:
    pace = MailPace(ENVIRONMENT["IDEMPOTENCY_TABLE_NAME"])
    for _ in range(AT_ONCE):
        pace.wait_for_turn()
    assert clock.woken == [clock.now] * AT_ONCE
    pace.wait_for_turn()
    assert clock.woken[-1] - clock.now == pytest.approx(APART / 1000)


def test_a_line_that_is_too_long_is_not_joined(stack: Stack, clock: Clock) -> None:
    pace = MailPace(ENVIRONMENT["IDEMPOTENCY_TABLE_NAME"])
    for _ in range(PATIENCE // APART + 1):
        pace.wait_for_turn()
    for _ in range(3):
        with pytest.raises(TooManyMailsError, match="80 mails wait"):
            pace.wait_for_turn()
    # It was not made longer by them.
    clock.now += APART / 1000
    pace.wait_for_turn()


def test_what_a_clock_that_was_wrong_has_planned_holds_nobody_up(stack: Stack, clock: Clock) -> None:
    pace, right = MailPace(ENVIRONMENT["IDEMPOTENCY_TABLE_NAME"]), clock.now
    clock.now += 10 * ABSURD
    pace.wait_for_turn()
    clock.now = right
    pace.wait_for_turn()
    assert clock.woken[-1] == right


def test_a_table_that_plans_no_mails_keeps_none_back(
    stack: Stack, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any) -> None:
        raise ServiceUnavailableError("DynamoDB is down.", "Wait.")

    deployment.deployment(None).records.create(replace(RUN, run_id="cats-0000"), "arn:execution")
    monkeypatch.setattr(MailPace, "wait_for_turn", refuse)
    fail(stack, 0)
    assert len(stack.mails()) == 1
