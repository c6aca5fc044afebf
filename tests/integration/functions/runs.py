"""Runs that came as far as their plan."""

from __future__ import annotations

import json
from typing import Any

from fine_tuning.aws import deployment
from fine_tuning.run import Run
from tests.functions_data import BUCKET
from tests.integration.functions.conftest import Stack

SUMMARY = {
    "total_steps": 60,
    "max_runtime_seconds": 2400,
    "instance_type": "ml.g5.8xlarge",
    "spot": False,
    "estimated_seconds": 300,
    "estimated_cost_usd": 0.26,
    "own_seconds": 300,
}
REPORT = json.dumps({"findings": [], "plan": {"base_model": "m@r"}}).encode()
# The part of a rung that a look is told of.
RUNG = {"spot": False, "max_runtime_seconds": 2400, "fixed_seconds": 305}


def planned(
    stack: Stack, run_id: str = "cats-0123456789ab", manifest: bytes = b'{"version": 1}'
) -> dict[str, Any]:
    """A run with the status PLANNED; what its later steps read lies in the bucket."""
    version = stack.put("datasets/cats/manifest.json", manifest)
    run = Run(run_id, BUCKET, "datasets/cats/", "datasets/cats/manifest.json", version)
    stack.put(run.plan_key, json.dumps({"base_model": {"kind": "hub", "id": "m", "revision": "r"}}).encode())
    inventory = {"path": "a.jpg", "size": 1, "etag": "e", "version_id": "v", "sha256": "s", "kind": "image"}
    stack.put(run.inventory_key, json.dumps(inventory).encode())
    records = deployment.deployment(None).records
    records.create(run, f"arn:execution:{run_id}")
    records.advance(run_id, "PLANNED", {"plan": SUMMARY})
    return run.as_payload()


def starting(stack: Stack, run_id: str = "cats-0123456789ab") -> dict[str, Any]:
    """A run whose flow is about to start the pipeline, or has just done so."""
    run = planned(stack, run_id)
    deployment.deployment(None).records.advance(run_id, "STARTING")
    return run
