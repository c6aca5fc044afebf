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
    watched = watch(
        run=Run.from_payload(event["run"]),
        pipeline_execution_arn=event["pipeline_execution_arn"],
        token=event["token"],
        deadline=datetime.fromisoformat(event["deadline"]),
        rung=event["rung"],
        attempt=event["attempt"],
        now=using.clock(),
        settings=using.settings,
        records=using.records,
        training=using.training,
    )
    tell_progress(watched, using.objects, using.records, using.mail)
    return watched.observation.as_document()
