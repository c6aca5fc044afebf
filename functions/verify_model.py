"""Proves that the model is there and whole (state VerifyModel)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.run import Run
from fine_tuning.steps.verifying import verify_model


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    return verify_model(Run.from_payload(event["run"]), event["observation"], using.objects, using.records)
