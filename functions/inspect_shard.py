"""Decodes the images and reads the captions of a shard (state InspectShard)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.run import Run
from fine_tuning.steps.inspecting import inspect_shard


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    run, shard_key = Run.from_payload(event["run"]), event["shard"]["key"]
    return inspect_shard(run, shard_key, deployment(context).objects)
