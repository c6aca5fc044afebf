"""Ends the runs whose flow ended without an event (a schedule)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.steps.reconciling import reconcile


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    name = using.settings.pipeline_name
    return reconcile(
        using.clock(), name, using.objects, using.records, using.slots, using.training, using.mail
    )
