"""Finds the training image, or sees to it that it is being built."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from fine_tuning.aws.images import Images
from fine_tuning.aws.mail import Mail
from fine_tuning.aws.objects import Objects
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.errors import BuildQuotaError, FineTuningError
from fine_tuning.image import LONGEST_BUILD, decide, wait_seconds
from fine_tuning.observability import logger
from fine_tuning.run import Run
from fine_tuning.steps.telling import tell_in_passing

_WAITING = "WAITING_FOR_IMAGE"


def resolve_image(run: Run, now: datetime, images: Images, records: RunRecords) -> dict[str, Any]:
    """Ready with the image by digest, building, failed, or no_source.

    A running build is awaited, never duplicated. So are other builds of the account that keep the image's from being
    started: building without a `build_id`, for as long as one build may take.
    """
    image = images.newest()
    builds = [] if image else images.builds()
    commit = None if image else images.source_commit()
    decision = decide(image, builds, commit)
    answer = {"status": decision.status, "image": image, "build_id": decision.build_id, "wait_seconds": 0}
    if decision.status != "building":
        return answer
    waited = _waited(run, now, records)
    if decision.starts_build and commit is not None:
        answer["build_id"] = _started(commit, waited, images)
    records.advance(run.run_id, _WAITING)
    return {**answer, "wait_seconds": wait_seconds(waited)}


def _started(commit: str, waited: timedelta, images: Images) -> str | None:
    try:
        return images.start_build(commit)
    except BuildQuotaError as refusal:
        if waited > LONGEST_BUILD:
            raise
        logger.warning("The image's build cannot be started yet", problem=str(refusal))
        return None


def _waited(run: Run, now: datetime, records: RunRecords) -> timedelta:
    """Since it first waited for the image."""
    changes = records.find(run.run_id)["history"]
    since = [datetime.fromisoformat(change["at"]) for change in changes if change["status"] == _WAITING]
    return now - since[0] if since else timedelta()


def tell_building(
    run: Run, resolved: Mapping[str, Any], objects: Objects, records: RunRecords, mail: Mail
) -> None:
    """One mail a run that waits for its build, and one if that has to wait for others."""
    if resolved["status"] != "building":
        return
    facts = {"reason": "build-quota"}
    if resolved["build_id"] is not None:
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
