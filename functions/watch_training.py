"""Stores the flow's task token and looks at the training (state WatchTraining)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.run import Run
from fine_tuning.steps.watching import watch


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    run, arn, token = Run.from_payload(event["run"]), event["pipeline_execution_arn"], event["token"]
    deadline = datetime.fromisoformat(event["deadline"])
    return watch(run, arn, token, deadline, using.clock(), using.records, using.training).as_document()
