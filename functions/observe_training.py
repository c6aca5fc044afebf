"""Looks at a training when SageMaker says that it changed (rules on SageMaker's events)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.steps.watching import observe


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    observation = observe(event, using.records, using.training)
    return observation.as_document() if observation else {"status": "IGNORED"}
