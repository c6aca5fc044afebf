"""Lists the dataset, waits for the rest of it, and divides the inspection."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fine_tuning import inventory, shards, upload
from fine_tuning.aws.mail import Mail
from fine_tuning.aws.objects import Objects
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.findings import Finding
from fine_tuning.report import rejection
from fine_tuning.run import Run
from fine_tuning.settings import Settings
from fine_tuning.steps.reading import read_manifest
from fine_tuning.steps.telling import tell_in_passing
from fine_tuning.upload import Sighting


def take_inventory(
    run: Run,
    started_at: datetime,
    now: datetime,
    settings: Settings,
    objects: Objects,
    records: RunRecords,
    before: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Complete with shards, waiting, or expired with the report written.

    Args:
        before: `sighting` of the answer to the look before this one; None at the first.
    """
    manifest = read_manifest(run, objects)
    # Before the objects, so that a file whose upload ends in between is seen once at least.
    unfinished = objects.unfinished_uploads(run.dataset_prefix)
    listing = objects.list_dataset(run.dataset_prefix)
    listed = inventory.without_manifest(listing)
    sighting = Sighting.of(listing, now, Sighting.from_document(before) if before else None)
    state = upload.completeness(
        listing,
        unfinished,
        sighting.since,
        manifest,
        started_at,
        now,
        settings.settle_seconds,
        settings.upload_wait_seconds,
    )
    answer: dict[str, Any] = {
        "status": state.status,
        "wait_seconds": state.wait_seconds,
        "awaited": _awaited(state.findings) if state.stands_still else "",
        "sighting": sighting.as_document(),
        "shards": [],
    }
    if state.status == "waiting":
        records.advance(run.run_id, "WAITING_FOR_UPLOAD")
        return answer
    if state.status == "expired":
        objects.write_document(run.report_key, rejection(state.findings))
        return answer
    files = [one.file for one in listed]
    for number, shard in enumerate(shards.into_shards(files, settings.shard_size)):
        key = run.shard_key(number)
        document = {"files": [file.as_document() for file in shard]}
        objects.write(key, json.dumps(document).encode(), "application/json")
        answer["shards"].append({"key": key})
    records.advance(run.run_id, "INSPECTING")
    return answer


def tell_awaited(
    run: Run, inventory: Mapping[str, Any], objects: Objects, records: RunRecords, mail: Mail
) -> None:
    """One mail a run whose upload stands still before it is complete."""
    if inventory["awaited"]:
        facts = {"reason": "upload", "detail": inventory["awaited"]}
        tell_in_passing(run, "waiting", facts, objects, records, mail)


def _awaited(missing: Sequence[Finding]) -> str:
    first, more = missing[0], len(missing) - 1
    also = f" And {more} more." if more else ""
    return f"{first.path}: {first.message}{also}" if first.path else first.message
