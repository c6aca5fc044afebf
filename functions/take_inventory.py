"""Lists the dataset, once its upload is over (state TakeInventory)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.run import Run
from fine_tuning.steps.resolving_image import tell_missing_source
from fine_tuning.steps.taking_inventory import take_inventory, tell_awaited


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    run, started_at = Run.from_payload(event["run"]), datetime.fromisoformat(event["started_at"])
    answer = take_inventory(
        run, started_at, using.clock(), using.settings, using.objects, using.records, event.get("sighting")
    )
    tell_awaited(run, answer, using.objects, using.records, using.mail)
    tell_missing_source(run, answer, using.images, using.objects, using.records, using.mail)
    return answer
