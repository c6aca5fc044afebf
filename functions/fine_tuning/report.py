"""report.json: what a dataset was planned as, or why it was rejected (events/report.schema.json)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fine_tuning.buckets import batches
from fine_tuning.findings import Finding, in_order
from fine_tuning.plan import Decision


def report(decision: Decision) -> dict[str, Any]:
    """report.json of a dataset that was planned or rejected."""
    facts = None
    if decision.summary and decision.base_model:
        facts = {
            **decision.summary,
            "base_model": decision.base_model.name,
            "buckets": _bucket_table(decision),
        }
    return {
        "accepted": decision.accepted,
        "findings": [finding.as_document() for finding in decision.findings],
        "plan": facts,
        "quote": decision.quote.as_document() if decision.quote else None,
    }


def _bucket_table(decision: Decision) -> list[dict[str, int]]:
    batch_size: int = (decision.config or {}).get("train_batch_size", 1)
    return [
        {
            "width": bucket.size[0],
            "height": bucket.size[1],
            "images": bucket.images,
            "batches": batches([bucket], batch_size),
        }
        for bucket in decision.buckets
    ]


def rejection(findings: Sequence[Finding]) -> dict[str, Any]:
    """report.json of what was rejected before it could be planned."""
    documents = [finding.as_document() for finding in in_order(findings)]
    return {"accepted": False, "findings": documents, "plan": None, "quote": None}
