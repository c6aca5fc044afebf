"""CloudWatch: an alarm watches the one metric that its dimensions name, and knows what missing data means."""

import operator
import time
from collections.abc import Callable
from typing import Any

from ministack.services import cloudwatch

from local.embedded_aws.patching import replace

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
STATES_OF_MISSING_DATA = {"notBreaching": "OK", "breaching": "ALARM", "missing": "INSUFFICIENT_DATA"}


def install() -> None:
    replace(cloudwatch, "_evaluate_alarm", evaluate)


def evaluate(alarm: dict[str, Any]) -> None:
    """Bring the alarm into the state that its metric demands now, with its actions; one window, not several periods."""
    found = state_of(alarm)
    before = alarm["StateValue"]
    if found is None or found[0] == before:
        return
    state, reason = found
    alarm.update(StateValue=state, StateReason=reason, StateUpdatedTimestamp=int(time.time()))
    cloudwatch._record_history(alarm["AlarmName"], before, state, reason)
    cloudwatch._dispatch_alarm_actions(alarm, before, state, reason)
    cloudwatch._evaluate_parent_alarms(alarm)


def state_of(alarm: dict[str, Any]) -> tuple[str, str] | None:
    """The state and its reason; None where what is missing leaves the state as it is."""
    dimensions = cloudwatch._dims_key(cloudwatch._dims_from_list(alarm.get("Dimensions") or []))
    points = cloudwatch._metrics.get((alarm["Namespace"], alarm["MetricName"], dimensions)) or []
    since = time.time() - alarm.get("Period", 60) * alarm.get("EvaluationPeriods", 1)
    recent = [point for point in points if point["Timestamp"] >= since]
    if not recent:
        state = STATES_OF_MISSING_DATA.get(alarm.get("TreatMissingData") or "missing")
        return (state, "No datapoints were received") if state else None
    statistic = alarm.get("ExtendedStatistic") or alarm.get("Statistic") or "Average"
    value = cloudwatch._stat_value(cloudwatch._calc_stats(recent), statistic, recent)
    comparison, threshold = alarm["ComparisonOperator"], alarm["Threshold"]
    crossed = value is not None and COMPARISONS[comparison](value, threshold)
    return "ALARM" if crossed else "OK", f"Threshold Crossed: {statistic} {value} {comparison} {threshold}"
