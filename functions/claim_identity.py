"""Claims a dataset's identity, so that it is not trained twice (state ClaimIdentity)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.run import Run
from fine_tuning.steps.claiming import claim_identity


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    return claim_identity(Run.from_payload(event["run"]), event["image"], using.objects, using.records)
