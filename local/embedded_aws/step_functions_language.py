"""JSONata states as Step Functions runs them, where ministack differs.

Only what the application's flow uses: Assign, Choice, Succeed, Pass, Wait, inline Map and the delays of Retry.
"""

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

from ministack.services import stepfunctions as states

from local.embedded_aws.patching import replace

State = Mapping[str, Any]
Context = dict[str, Any]

MAXIMUM_PAYLOAD_BYTES = 256 * 1024


def install() -> None:
    replace(states, "_apply_state_assign", assign)
    output_path = replace(states, "_apply_output_path", lambda *state: succeed_output(output_path, *state))
    json_path_choice = replace(states, "_execute_choice", lambda *state: choose(json_path_choice, *state))

    def find_retrier(
        retriers: list[State], error: str, attempts: Mapping[int, int]
    ) -> tuple[State | None, int]:
        retrier, index = matching_retrier(retriers, error, attempts)
        return (with_delay(retrier, attempts.get(index, 0)) if retrier else None), index

    matching_retrier = replace(states, "_find_matching_retrier", find_retrier)
    apply_output = replace(
        states, "_apply_jsonata_output", lambda *state, **more: held_to_quota(apply_output(*state, **more))
    )


def is_jsonata(state: State, context: Context | None) -> bool:
    return bool(states._state_query_language(state, context) == "JSONata")


def assign(
    state: State, data: Any, context: Context | None, result: Any = None, error_output: Any = None
) -> None:
    """Evaluate every expression with the variables as they were on entry, then set all of them at once."""
    assignments = state.get("Assign")
    if context is None or not isinstance(assignments, dict) or not is_jsonata(state, context):
        return
    values = states._apply_jsonata_template(assignments, data, context, result, error_output)
    context.setdefault("variables", {}).update(values)


def succeed_output(
    output_path: Callable[..., Any], state: State, data: Any, context: Context | None = None
) -> Any:
    """A Succeed state has an Output of its own; all other types come here with JSONPath alone."""
    if state.get("Type") == "Succeed" and is_jsonata(state, context):
        return states._apply_jsonata_output(state, data, context, default=data)
    return output_path(state, data, context)


def choose(
    json_path_choice: Callable[..., Any], state: State, data: Any, context: Context | None = None
) -> tuple[Any, str]:
    """The first rule whose Condition is true, else the Default; the chosen one's Output and Assign apply."""
    if not is_jsonata(state, context):
        chosen: tuple[Any, str] = json_path_choice(state, data, context)
        return chosen
    for rule in state.get("Choices", []):
        condition = states._apply_jsonata_template(rule["Condition"], data, context)
        if not isinstance(condition, bool):
            raise states._ExecutionError(
                "States.QueryEvaluationError",
                f"The JSONata expression '{rule['Condition']}' specified for the field 'Condition' returned "
                f"an unexpected result type. Expected 'boolean', but was '{states._json_type(condition)}'",
            )
        if condition:
            chosen_rule, following = rule, rule["Next"]
            break
    else:
        if "Default" not in state:
            raise states._ExecutionError(
                "States.NoChoiceMatched", "No choice rule matched and there is no Default"
            )
        chosen_rule, following = state, state["Default"]
    output = states._apply_jsonata_output(chosen_rule, data, context, default=data)
    # A rule names no query language of its own: the state's, or else the machine's, holds for it.
    assign({**chosen_rule, "QueryLanguage": "JSONata"}, data, context)
    return output, following


def with_delay(retrier: State, attempts: int) -> State:
    """The retrier with the delay before its next attempt: capped by MaxDelaySeconds, then jittered.

    ministack computes interval x backoff ^ attempts, so the backoff is spent here.
    """
    delay = retrier.get("IntervalSeconds", 1) * retrier.get("BackoffRate", 2.0) ** attempts
    delay = min(delay, retrier.get("MaxDelaySeconds", delay))
    if retrier.get("JitterStrategy") == "FULL":
        delay = random.uniform(0, delay)
    return {**retrier, "IntervalSeconds": delay, "BackoffRate": 1}


def held_to_quota(output: Any) -> Any:
    """A state's output, unless it is larger than a payload may be."""
    if len(json.dumps(output).encode()) > MAXIMUM_PAYLOAD_BYTES:
        raise states._ExecutionError(
            "States.DataLimitExceeded",
            "The state/task returned a result with a size exceeding the maximum number of bytes service "
            "limit.",
        )
    return output
