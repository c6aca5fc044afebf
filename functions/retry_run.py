"""Runs a dropped manifest once more, from its last checkpoint (./dev retry, or a test event `{"run_id"}`)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.steps.retrying import retry


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    return retry(event["run_id"], using.records, using.executions)
