"""Stores the flow's task token and looks at the training (state WatchTraining)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.run import Run
from fine_tuning.steps.watching import tell_progress, watch


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    run, arn, token = Run.from_payload(event["run"]), event["pipeline_execution_arn"], event["token"]
    deadline, now = datetime.fromisoformat(event["deadline"]), using.clock()
    # A flow that an older version of this stack started says neither what it trains on nor which attempt it watches.
    rung, attempt = event.get("rung", {}), event.get("attempt")
    settings, records, training = using.settings, using.records, using.training
    watched = watch(run, arn, token, deadline, rung, now, settings, records, training, attempt)
    tell_progress(watched, using.objects, using.records, using.mail)
    return watched.observation.as_document()
