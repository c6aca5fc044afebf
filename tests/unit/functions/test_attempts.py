"""What follows when AWS has no instance for a training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_tuning import attempts
from fine_tuning.account_limit import AccountLimit
from fine_tuning.attempts import Attempt, Ended, Lack, Patience, following, within_budget
from fine_tuning.service_limit import NO_INSTANCE, lack_of, quota_of

PATIENCE = Patience(tries=3, wait_seconds=300)


def rung(instance_type: str, spot: bool = False, seconds: int = 3600) -> dict[str, Any]:
    values = {"TrainingInstanceType": instance_type, "MaxTrainingRuntimeInSeconds": str(3 * seconds)}
    if spot:
        values["MaxWaitTimeInSeconds"] = str(6 * seconds)
    return {
        "instance_type": instance_type,
        "spot": spot,
        "estimated_seconds": seconds,
        "own_seconds": seconds,
        "fixed_seconds": 0,
        "estimated_cost_usd": 1.0,
        "usd_per_hour": {"ml.g6.2xlarge": 1.22, "ml.g5.2xlarge": 1.52, "ml.p5.4xlarge": 7.91}.get(
            instance_type
        ),
        "max_runtime_seconds": 3 * seconds,
        "pipeline_parameters": [{"Name": name, "Value": value} for name, value in values.items()],
    }


LADDER = [rung("ml.g6.2xlarge", spot=True), rung("ml.g6.2xlarge"), rung("ml.g5.2xlarge")]


def ended(lack: Lack | None, cost_usd: float | None = None, quota: str | None = None) -> Ended:
    return Ended("ml.g6.2xlarge", True, "Failed", lack, quota, "why", None, cost_usd, "arn")


def starts(lacks: list[Lack], ladder: list[dict[str, Any]] = LADDER) -> list[tuple[int, int]]:
    """(rung, seconds waited) of every start after the first, each ended by the next lack."""
    attempt, made = Attempt(), []
    for lack in lacks:
        then = following(ladder, attempt, ended(lack), PATIENCE, None)
        if then is None:
            break
        attempt = then.attempt
        made.append((attempt.rung, then.wait_seconds))
    return made


def test_lack_of_capacity_waits_twice_as_long_each_time_and_then_takes_the_next_rung() -> None:
    lacks: list[Lack] = ["capacity"] * 20
    assert starts(lacks) == [(0, 300), (0, 600), (1, 0), (1, 300), (1, 600), (2, 0), (2, 300), (2, 600)]


def test_a_quota_is_waited_for_one_that_is_too_small_is_not() -> None:
    assert starts(["quota"]) == [(0, 300)]
    assert starts(["quota-too-small", "quota-too-small", "quota-too-small"]) == [(1, 0), (2, 0)]


def test_a_quota_in_use_by_other_jobs_is_waited_for_two_days_without_counting_tries() -> None:
    lacks: list[Lack] = ["quota-in-use"] * 100
    waits = [seconds for _, seconds in starts(lacks, LADDER[:1])]
    assert waits[:7] == [300, 300, 600, 1200, 2400, 3600, 3600]
    assert 48 * 3600 <= sum(waits) < 49 * 3600


def test_for_a_quota_in_use_no_rung_is_passed_by_that_may_be_free() -> None:
    lacks: list[Lack] = ["quota-in-use"] * 100
    made = starts(lacks)
    assert made[:6] == [(0, 300), (0, 600), (1, 0), (1, 300), (1, 600), (2, 0)]
    assert {place for place, _ in made[6:]} == {2}
    assert 48 * 3600 <= sum(seconds for _, seconds in made[6:]) < 49 * 3600


def test_lack_of_capacity_is_waited_for_as_often_after_a_quota_in_use() -> None:
    in_use: list[Lack] = ["quota-in-use"] * 5
    capacity: list[Lack] = ["capacity"] * 3
    assert starts([*in_use, *capacity], LADDER[:1])[5:] == [(0, 300), (0, 600)]


def test_spot_capacity_that_did_not_come_in_time_is_not_waited_for_again() -> None:
    assert starts(["spot-wait"]) == [(1, 0)]


def test_where_sagemaker_looked_in_vain_the_next_rung_follows_at_once_and_the_last_is_tried_again() -> None:
    lacks: list[Lack] = ["no-instance"] * 20
    assert starts(lacks) == [(1, 0), (2, 0), (2, 300), (2, 600)]


def test_a_rung_that_no_later_one_is_affordable_for_is_tried_again() -> None:
    ladder = [rung("ml.g6.2xlarge"), rung("ml.p5.4xlarge")]
    then = following(ladder, Attempt(), ended("no-instance", cost_usd=0.5), PATIENCE, 2.5)
    assert then is not None
    assert (then.attempt.rung, then.attempt.tries, then.wait_seconds) == (0, 2, 300)


def test_an_internal_error_is_tried_again_on_the_same_rung_and_on_no_other() -> None:
    assert starts(["internal-error"] * 20) == [(0, 300), (0, 600)]
    assert starts(["capacity", "capacity", "capacity", "internal-error"]) == [
        (0, 300),
        (0, 600),
        (1, 0),
        (1, 300),
    ]
    assert "AWS Support" in attempts.remedy([ended("capacity"), ended("internal-error")])


def test_no_wait_is_longer_than_an_hour() -> None:
    then = following(LADDER, Attempt(tries=9), ended("capacity"), Patience(10, 300), None)
    assert then is not None
    assert then.wait_seconds == 3600


@given(
    st.lists(
        st.sampled_from(
            [
                "capacity",
                "quota",
                "quota-in-use",
                "quota-too-small",
                "spot-wait",
                "no-instance",
                "internal-error",
            ]
        ),
        max_size=30,
    )
)
def test_every_start_has_a_number_of_its_own_and_the_ladder_comes_to_an_end(lacks: list[Lack]) -> None:
    attempt, numbers = Attempt(), [1]
    for lack in lacks:
        then = following(LADDER, attempt, ended(lack), PATIENCE, None)
        if then is None:
            break
        assert _place(then.attempt) > _place(attempt)
        attempt = Attempt.from_document(then.attempt.as_document())
        assert attempt == then.attempt
        numbers.append(attempt.number)
    assert numbers == list(range(1, len(numbers) + 1))
    others = lacks.count("quota-in-use")
    assert len(numbers) <= len(LADDER) * PATIENCE.tries + others


def _place(attempt: Attempt) -> tuple[int, int, int]:
    return attempt.rung, attempt.tries, attempt.waited_for_others


def test_what_was_spent_before_shortens_the_next_rung() -> None:
    # 1.22 USD an hour: of 2 USD, 0.78 are left for 2301 s.
    shortened = within_budget(LADDER[0], 2.0, 1.22, remaining=0.5)
    assert shortened is not None
    given_ = {p["Name"]: p["Value"] for p in shortened["pipeline_parameters"]}
    assert shortened["max_runtime_seconds"] == 2301
    assert (given_["MaxTrainingRuntimeInSeconds"], given_["MaxWaitTimeInSeconds"]) == ("2301", "4602")
    assert given_["TrainingInstanceType"] == "ml.g6.2xlarge"


def test_a_rung_that_the_rest_of_the_budget_does_not_pay_for_is_passed_over() -> None:
    assert within_budget(LADDER[0], 2.0, 1.22, remaining=1) is None
    assert within_budget(LADDER[0], 1.0, 1.22, remaining=0.1) is None
    ladder = [LADDER[0], rung("ml.p5.4xlarge"), rung("ml.g6.2xlarge")]
    then = following(ladder, Attempt(), ended("spot-wait", cost_usd=0.5), PATIENCE, 2.5)
    assert then is not None
    assert then.attempt.rung == 2
    assert following(LADDER, Attempt(), ended("spot-wait", cost_usd=3), PATIENCE, 2.5) is None


def test_a_rung_is_held_to_its_share_of_the_quote() -> None:
    assert within_budget(LADDER[1], 1.0 + 1801 / 3600 * 1.22, 1.0, remaining=0.5) is not None
    assert within_budget(LADDER[1], 1.0 + 1799 / 3600 * 1.22, 1.0, remaining=0.5) is None


@pytest.mark.parametrize(("remaining", "needed"), [(1.0, 2300), (0.6, 300 + 1200), (0.0, 300)])
def test_an_attempt_must_pay_for_another_start_and_the_steps_that_the_trainers_own_unet_has_left(
    remaining: float, needed: int
) -> None:
    quoted = {**LADDER[1], "estimated_seconds": 1300, "own_seconds": 2300, "fixed_seconds": 300}
    left = needed / 3600 * 1.22
    enough = within_budget(quoted, 1.0 + left + 0.001, 1.0, remaining)
    assert enough is not None
    assert needed <= enough["max_runtime_seconds"] < needed + 5
    assert within_budget(quoted, 1.0 + left - 0.001, 1.0, remaining) is None


@pytest.mark.parametrize(
    ("budget", "spent", "name"), [(None, 5, "ml.g6.2xlarge"), (9, 0, "ml.g6.2xlarge"), (9, 5, "ml.x9.large")]
)
def test_without_a_budget_an_expense_or_a_price_a_rung_stays_as_it_is(
    budget: float | None, spent: float, name: str
) -> None:
    assert within_budget(rung(name), budget, spent, 1) == rung(name)


def test_an_exhausted_ladder_names_every_quota_once() -> None:
    quota = "ml.g6.2xlarge for spot training job usage"
    tried = [ended("quota-too-small", quota=quota), ended("quota", quota=quota), ended("capacity")]
    tried.append(replace(tried[0], spot=False, quota="ml.g6.2xlarge for training job usage"))
    assert attempts.remedy(tried).count(f"'{quota}'") == 1
    assert "'ml.g6.2xlarge for training job usage'" in attempts.remedy(tried)
    assert attempts.in_words(tried) == (
        "Tried: ml.g6.2xlarge (spot) 3 times, ml.g6.2xlarge (on demand) once."
    )
    assert "quota" not in attempts.remedy([ended("capacity")])


REFUSED = (
    "ClientError: Failed to invoke sagemaker:CreateTrainingJob. Error Details: The account-level service limit "
    "'ml.g5.8xlarge for spot training job usage' is {limit} Instances, with current utilization of 0 Instances "
    "and a request delta of 1 Instances. Please use AWS Service Quotas to request an increase for this quota."
)
LIMIT = (
    "ClientError: An error occurred (ResourceLimitExceeded) when calling the CreateTrainingJob operation: The "
    "account-level service limit {} {unit}, with current utilization of {} {unit} and a request delta of {} {unit}. "
    "Please contact AWS support to request an increase for this limit."
)
ELEVEN_OF_FOUR = LIMIT.format("'Number of instances across all training jobs' is 4", 0, 11, unit="Instances")
FOUR_OF_FOUR = LIMIT.format("'Number of instances across all training jobs' is 4", 4, 1, unit="Instances")
TOO_LONG = LIMIT.format("'Longest run time for a training job' is 432,000", 0, 604800, unit="Seconds")
NAMELESS = LIMIT.format("is 2", 2, 1, unit="Instances")


@pytest.mark.parametrize(
    ("error", "reason", "observation", "lack"),
    [
        ("TrainingFailed", REFUSED.format(limit=0), {}, "quota-too-small"),
        ("TrainingFailed", REFUSED.format(limit=2), {}, "quota"),
        ("TrainingFailed", ELEVEN_OF_FOUR, {}, "quota-too-small"),
        ("TrainingFailed", TOO_LONG, {}, "quota-too-small"),
        ("TrainingFailed", FOUR_OF_FOUR, {}, "quota-in-use"),
        ("TrainingFailed", NAMELESS, {}, "quota-in-use"),
        ("SageMaker.ResourceLimitExceededException", FOUR_OF_FOUR, {}, "quota-in-use"),
        ("TrainingFailed", FOUR_OF_FOUR, {"training_job": "j"}, None),
        ("TrainingFailed", "ResourceLimitExceeded: too many", {"training_job": None}, "quota"),
        ("TrainingFailed", "CapacityError: Unable to provision", {"training_job": "j"}, "capacity"),
        ("TrainingFailed", "ClientError: CapacityError: none", {"training_job": "j"}, "capacity"),
        ("SageMaker.ResourceLimitExceededException", "executions", {}, "quota"),
        ("TrainingStopped", "", {"spot": True, "secondary_status": "MaxWaitTimeExceeded"}, "spot-wait"),
        ("TrainingStopped", "", {"spot": True, "secondary_status": "MaxRuntimeExceeded"}, None),
        (NO_INSTANCE, "SageMaker found none", {"training_job": "j"}, "no-instance"),
        (
            "TrainingFailed",
            "The loss is NaN. insufficient capacity of the network",
            {"training_job": "j"},
            None,
        ),
        ("TrainingFailed", "ResourceLimitExceeded, said the container", {"training_job": "j"}, None),
        (
            "TrainingFailed",
            "InternalServerError: We encountered an internal error.",
            {"training_job": "j"},
            "internal-error",
        ),
        (
            "TrainingFailed",
            "The hub answered InternalServerError",
            {"training_job": "j"},
            None,
        ),
    ],
)
def test_what_counts_as_lack(error: str, reason: str, observation: dict[str, Any], lack: Lack | None) -> None:
    assert lack_of(error, reason, observation) == lack


def test_the_quota_has_the_name_that_service_quotas_lists() -> None:
    instance = {"instance_type": "ml.g5.8xlarge", "spot": True}
    assert quota_of(REFUSED.format(limit=0), {}) == "ml.g5.8xlarge for spot training job usage"
    assert quota_of("ResourceLimitExceeded", instance) == "ml.g5.8xlarge for spot training job usage"
    assert quota_of(ELEVEN_OF_FOUR, instance) == "Number of instances across all training jobs"
    assert quota_of(TOO_LONG, instance) == "Longest run time for a training job"
    assert quota_of(NAMELESS, instance) == "ml.g5.8xlarge for spot training job usage"


def test_a_limit_is_known_as_far_as_it_was_told() -> None:
    assert AccountLimit.of(ELEVEN_OF_FOUR) == AccountLimit(
        "Number of instances across all training jobs", 4, 0, 11
    )
    assert AccountLimit.of(TOO_LONG) == AccountLimit(
        "Longest run time for a training job", 432_000, 0, 604_800
    )
    assert AccountLimit.of(NAMELESS) == AccountLimit(None, 2, 2, 1)
    assert AccountLimit.of("account-level service limit 'a' is 0 Instances") == AccountLimit("a", 0)
    assert AccountLimit.of("ResourceLimitExceeded: too many") == AccountLimit()


@pytest.mark.parametrize(
    ("limit", "never", "in_use"),
    [
        # The request alone is above it …
        (AccountLimit("a", 0), True, False),
        (AccountLimit("a", 0, 0, 1), True, False),
        (AccountLimit("a", 4, 0, 11), True, False),
        (AccountLimit("a", 4, 1, 11), True, False),
        # … others are in the way …
        (AccountLimit("a", 1, 1, 1), False, True),
        (AccountLimit("a", 2, 3, 1), False, True),
        (AccountLimit("a", 4, 3, 2), False, True),
        # … or neither is told.
        (AccountLimit("a", 4, 3, 1), False, False),
        (AccountLimit("a", 1), False, False),
        (AccountLimit(), False, False),
    ],
)
def test_a_limit_is_too_small_for_the_request_alone_or_in_use_by_others(
    limit: AccountLimit, never: bool, in_use: bool
) -> None:
    assert (limit.never_allows, limit.is_in_use) == (never, in_use)


def test_another_instance_type_is_no_remedy_for_a_limit_of_all() -> None:
    assert "instance type" in attempts.to_raise(["ml.g5.8xlarge for training job usage"])
    assert "instance type" not in attempts.to_raise(["Longest run time for a training job"])
    assert "'Longest run time for a training job'" in attempts.to_raise(
        ["Longest run time for a training job"]
    )


def test_the_furthest_checkpoint_of_all_attempts_decides_what_is_still_to_be_paid() -> None:
    far = replace(ended("spot-wait", cost_usd=1.0), remaining=0.2)
    nowhere = ended("quota-too-small", cost_usd=None)
    ladder = [LADDER[0], LADDER[1], rung("ml.g5.2xlarge")]
    # 0.7 USD are left for the last rung: 27 minutes at 1.52 USD an hour, a fifth of its hour.
    then = following(ladder, Attempt(number=2, rung=1, ended=(far,)), nowhere, PATIENCE, 1.7)
    assert then is not None
    assert then.attempt.rung == 2
    assert (
        following(
            ladder, Attempt(number=2, rung=1, ended=(replace(far, remaining=1.0),)), nowhere, PATIENCE, 1.7
        )
        is None
    )


def test_what_attempts_before_the_last_cost_is_counted_once() -> None:
    first, second = (
        {"cost_usd": cost, "pipeline_execution_arn": arn} for cost, arn in ((1.5, "a"), (None, "b"))
    )
    assert attempts.cost_of_earlier({"attempts": [first, second], "pipeline_execution_arn": "c"}) == 1.5
    assert attempts.cost_of_earlier({"attempts": [second, first], "pipeline_execution_arn": "a"}) == 0
    assert attempts.cost_of_earlier({}) == 0
