"""Stops a training that nobody waits for (state StopTraining, and a rule on ended executions)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.steps.queueing import leave
from fine_tuning.steps.stopping import stop, stop_ended_execution


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    name = using.settings.pipeline_name
    if "detail" in event:
        try:
            return stop_ended_execution(event, name, using.objects, using.records, using.training, using.mail)
        finally:  # who waits for the slot does not wait for the mail
            leave(event["detail"]["name"], using.records, using.slots)
    return stop(event["run"]["run_id"], event["pipeline_execution_arn"], name, using.training)
