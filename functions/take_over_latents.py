"""Brings latents that earlier runs kept to where the training job finds them (state TakeOverLatents)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.run import Run
from fine_tuning.steps.taking_over_latents import take_over_latents


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    run = Run.from_payload(event["run"])
    return take_over_latents(run, using.objects, using.records, using.latent_runs, using.clock)
