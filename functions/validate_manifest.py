"""Judges a dropped manifest.json and starts its run (rule: S3 Object Created)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.steps.receiving import Drop, receive


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    return receive(Drop.of_event(event), using.objects, using.records, using.executions, using.mail)
