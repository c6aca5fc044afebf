"""Decides about a dataset and plans its training (state PlanRun)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.run import Run
from fine_tuning.steps.planning import plan_run


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    run, result_keys = Run.from_payload(event["run"]), [result["key"] for result in event["results"]]
    return plan_run(run, result_keys, using.settings, using.objects, using.records)
