"""Finds the training image, or sees to it that it is being built."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from fine_tuning.aws.images import Images
from fine_tuning.aws.mail import Mail
from fine_tuning.aws.objects import Objects
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.errors import FineTuningError
from fine_tuning.image import decide, wait_seconds
from fine_tuning.observability import logger
from fine_tuning.run import Run
from fine_tuning.steps.telling import tell_in_passing

_WAITING = "WAITING_FOR_IMAGE"


def resolve_image(run: Run, now: datetime, images: Images, records: RunRecords) -> dict[str, Any]:
    """Ready with the image by digest, building, failed, or no_source.

    A running build is awaited, never duplicated.
    """
    image = images.newest()
    builds = [] if image else images.builds()
    commit = None if image else images.source_commit()
    decision = decide(image, builds, commit)
    build_id = decision.build_id
    if decision.starts_build and commit is not None:
        build_id = images.start_build(commit)
    if decision.status == "building":
        records.advance(run.run_id, _WAITING)
    return {
        "status": decision.status,
        "image": image,
        "build_id": build_id,
        "wait_seconds": wait_seconds(_waited(run, now, records)) if decision.status == "building" else 0,
    }


def _waited(run: Run, now: datetime, records: RunRecords) -> timedelta:
    """Since it first waited for the image."""
    changes = records.find(run.run_id)["history"]
    since = [datetime.fromisoformat(change["at"]) for change in changes if change["status"] == _WAITING]
    return now - since[0] if since else timedelta()


def tell_building(
    run: Run, resolved: Mapping[str, Any], objects: Objects, records: RunRecords, mail: Mail
) -> None:
    """One mail a run that waits for a build."""
    if resolved["status"] == "building":
        facts = {"reason": "image", "detail": f"The build is {resolved['build_id']}."}
        tell_in_passing(run, "waiting", facts, objects, records, mail)


def tell_missing_source(
    run: Run, inventory: Mapping[str, Any], images: Images, objects: Objects, records: RunRecords, mail: Mail
) -> None:
    """One mail, as long as the upload is waited for: who has not built the image yet need not wait to be told."""
    if inventory["status"] != "waiting":
        return
    try:
        missing = images.source_commit() is None and images.newest() is None
    except FineTuningError as problem:  # the look that decides comes after the upload
        logger.warning("The image's source could not be looked for", run_id=run.run_id, problem=str(problem))
        return
    if missing:
        tell_in_passing(run, "waiting", {"reason": "source"}, objects, records, mail)
