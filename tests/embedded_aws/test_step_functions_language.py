"""JSONata states behave as the Amazon States Language says."""

import time
from itertools import pairwise
from typing import Any

from tests.embedded_aws.flows import Flows, task


def test_variables_in_one_assign_are_evaluated_with_the_values_on_entry(flows: Flows) -> None:
    """All expressions see "the values of the variables as they were on state entry"."""
    output = flows.output(
        First={"Type": "Pass", "Assign": {"x": 1}, "Next": "Second"},
        Second={"Type": "Pass", "Assign": {"x": 2, "y": "{% $x %}"}, "Next": "Third"},
        Third={"Type": "Pass", "Output": {"x": "{% $x %}", "y": "{% $y %}"}},
    )
    assert output == {"x": 2, "y": 1}


def test_succeed_has_an_output_of_its_own(flows: Flows) -> None:
    assert flows.output({"a": 7}, Done={"Type": "Succeed", "Output": {"got": "{% $states.input.a %}"}}) == {
        "got": 7
    }


def test_the_default_of_a_choice_applies_the_states_output_and_assign(flows: Flows) -> None:
    output = flows.output(
        Decide={
            "Type": "Choice",
            "Choices": [{"Condition": "{% 1 = 2 %}", "Next": "Done"}],
            "Default": "Done",
            "Assign": {"chosen": "default"},
            "Output": {"passed": True},
        },
        Done={"Type": "Pass", "Output": {"chosen": "{% $chosen %}", "passed": "{% $states.input.passed %}"}},
    )
    assert output == {"chosen": "default", "passed": True}


def test_the_chosen_rule_applies_its_own_output_and_assign(flows: Flows) -> None:
    output = flows.output(
        Decide={
            "Type": "Choice",
            "Choices": [
                {
                    "Condition": "{% 1 = 1 %}",
                    "Next": "Done",
                    "Assign": {"chosen": "rule"},
                    "Output": {"passed": 1},
                }
            ],
            "Default": "Done",
            "Assign": {"chosen": "default"},
        },
        Done={"Type": "Pass", "Output": {"chosen": "{% $chosen %}", "passed": "{% $states.input.passed %}"}},
    )
    assert output == {"chosen": "rule", "passed": 1}


def test_a_condition_that_is_no_boolean_is_a_query_evaluation_error(flows: Flows) -> None:
    ended = flows.run(
        States={
            "Decide": {
                "Type": "Choice",
                "Choices": [{"Condition": "{% 'yes' %}", "Next": "Done"}],
                "Default": "Done",
            },
            "Done": {"Type": "Succeed"},
        }
    )
    assert (ended["status"], ended["error"]) == ("FAILED", "States.QueryEvaluationError")


def test_a_choice_without_a_match_and_default_fails(flows: Flows) -> None:
    ended = flows.run(
        States={
            "Decide": {"Type": "Choice", "Choices": [{"Condition": "{% 1 = 2 %}", "Next": "Done"}]},
            "Done": {"Type": "Succeed"},
        }
    )
    assert (ended["status"], ended["error"]) == ("FAILED", "States.NoChoiceMatched")


def test_an_inline_map_keeps_the_order_and_its_iterations_do_not_share_variables(flows: Flows) -> None:
    """Variables that an iteration assigns are not visible outside of it."""
    output = flows.output(
        Before={"Type": "Pass", "Assign": {"n": 100}, "Next": "Each"},
        Each={
            "Type": "Map",
            "Items": "{% [3, 1, 2] %}",
            "MaxConcurrency": "{% 2 %}",
            "ItemSelector": {"n": "{% $states.context.Map.Item.Value %}"},
            "ItemProcessor": {
                "ProcessorConfig": {"Mode": "INLINE"},
                "StartAt": "Set",
                "States": {
                    "Set": {"Type": "Pass", "Assign": {"n": "{% $n + $states.input.n %}"}, "Next": "Get"},
                    "Get": {"Type": "Pass", "Output": "{% $n %}", "End": True},
                },
            },
            "Next": "After",
        },
        After={"Type": "Pass", "Output": {"each": "{% $states.input %}", "n": "{% $n %}"}},
    )
    assert output == {"each": [103, 101, 102], "n": 100}


def test_an_error_in_one_iteration_reaches_the_catch_of_the_map(flows: Flows) -> None:
    output = flows.output(
        Each={
            "Type": "Map",
            "Items": [1],
            "ItemProcessor": {"StartAt": "Fail", "States": {"Fail": {**task("flow-fail"), "End": True}}},
            "Catch": [
                {
                    "ErrorEquals": ["States.ALL"],
                    "Assign": {"e": "{% $states.errorOutput.Error %}"},
                    "Next": "B",
                }
            ],
        },
        B={"Type": "Pass", "Output": "{% $e %}"},
    )
    assert output == "DatasetError"


def delays(flows: Flows, retry: dict[str, Any]) -> list[float]:
    """Seconds between each failure of a task and its next attempt."""
    ended = flows.run(States={"Fail": task("flow-fail", Retry=[{"ErrorEquals": ["DatasetError"], **retry}])})
    assert ended["error"] == "DatasetError"
    history = flows.client.get_execution_history(executionArn=ended["executionArn"], maxResults=1000)[
        "events"
    ]
    return [
        (later["timestamp"] - earlier["timestamp"]).total_seconds()
        for earlier, later in pairwise(history)
        if (earlier["type"], later["type"]) == ("TaskFailed", "TaskScheduled")
    ]


def test_retry_delays_grow_by_the_backoff_rate_but_not_beyond_max_delay_seconds(flows: Flows) -> None:
    retry = {"IntervalSeconds": 1, "BackoffRate": 10, "MaxDelaySeconds": 2, "MaxAttempts": 2}
    first, second = delays(flows, retry)
    assert 1 <= first < 2
    assert 2 <= second < 10  # as it would be without the cap


def test_full_jitter_waits_for_a_random_part_of_the_delay(flows: Flows) -> None:
    retry = {"IntervalSeconds": 1, "BackoffRate": 1, "MaxAttempts": 4, "JitterStrategy": "FULL"}
    waited = delays(flows, retry)
    assert len(waited) == 4
    assert min(waited) < 1, "four full delays in a row are no jitter"
    assert max(waited) < 2


def test_a_state_may_not_hand_on_more_than_256_kib(flows: Flows) -> None:
    ended = flows.run(States={"Large": {"Type": "Pass", "Output": "{% $pad('', 262145, 'x') %}"}})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.DataLimitExceeded")


def test_an_undefined_result_is_an_error(flows: Flows) -> None:
    ended = flows.run(States={"A": {"Type": "Pass", "Output": "{% $states.input.missing %}"}})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.QueryEvaluationError")


def test_waiting_for_seconds_of_an_expression(flows: Flows) -> None:
    started = time.monotonic()
    flows.output({"s": 1}, Wait={"Type": "Wait", "Seconds": "{% $states.input.s %}"})
    assert time.monotonic() - started >= 1
