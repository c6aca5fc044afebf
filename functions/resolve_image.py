"""Finds the training image or its build (state ResolveImage)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.run import Run
from fine_tuning.steps.resolving_image import resolve_image, tell_building


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    run = Run.from_payload(event["run"])
    answer = resolve_image(run, using.clock(), using.images, using.records)
    tell_building(run, answer, using.objects, using.records, using.mail)
    return answer
