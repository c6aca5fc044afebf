"""Looks at a training when SageMaker says that it changed (rules on SageMaker's events)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.steps.watching import observe, tell_progress


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    watched = observe(event, using.clock(), using.settings, using.records, using.training)
    if watched is None:
        return {"status": "IGNORED"}
    tell_progress(watched, using.objects, using.records, using.mail)
    return watched.observation.as_document()
