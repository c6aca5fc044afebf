"""Copies the latents that earlier runs of the same dataset have kept, before the job starts that would encode them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from fine_tuning import kept_latents
from fine_tuning.aws.latent_runs import LatentRuns
from fine_tuning.aws.objects import Objects
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.errors import FineTuningError, ObjectMissingError
from fine_tuning.inventory import from_lines
from fine_tuning.observability import logger
from fine_tuning.run import Run

# S3 copies by itself: a file (0.3 MB at 1024 x 1024) takes a request of some 0.1 s and this function 4 ms of its one
# processor. That is 250 a second by 32 threads, and 15,000 in the time. A GPU encodes 10 a second: what a run waits
# here it has back 25 times. Above that the rest is left to it.
SECONDS = 60
THREADS = 32


def take_over_latents(
    run: Run,
    objects: Objects,
    records: RunRecords,
    latent_runs: LatentRuns,
    clock: Callable[[], datetime],
) -> dict[str, Any]:
    """{"images": whose latents were copied, "of": the run's images, "runs": that had them}.

    A run trains without them as well, so that whatever AWS refuses is logged, and no more.
    """
    until = clock() + timedelta(seconds=SECONDS)
    taken: dict[str, Any] = {"images": 0, "of": 0, "runs": []}
    try:
        plan = objects.read_document(run.plan_key)
        options = tomllib.loads(objects.read(run.config_key).decode())
        files = from_lines(objects.read(run.inventory_key))
        images = kept_latents.images(plan, files)
        taken["of"] = len(images)
        if not kept_latents.are_read(plan, files, options):
            # Nor will the run keep any, for which a later one should look.
            return taken
        target = kept_latents.folder(run.first_run_id)
        earlier = latent_runs.enter(kept_latents.made_with(run, plan, options), run.first_run_id)
        missing = images - _kept(target, objects).keys() if earlier else frozenset()
        for other in earlier:
            source = kept_latents.folder(other)
            found = _kept(source, objects)
            copied = _copy(
                kept_latents.copies(found, missing, source, target), objects, lambda: clock() < until
            )
            missing -= found.keys()
            if copied:
                taken = {**taken, "images": taken["images"] + copied, "runs": [*taken["runs"], other]}
        if taken["images"]:
            records.note(run.run_id, {"latents": taken})
    except FineTuningError as problem:
        logger.warning("The run goes on without latents of an earlier one", problem=str(problem))
    return taken


def _kept(prefix: str, objects: Objects) -> dict[str, str]:
    return kept_latents.kept((stored.key, stored.modified) for stored in objects.list_below(prefix))


def _copy(keys: Mapping[str, str], objects: Objects, in_time: Callable[[], bool]) -> int:
    """How many were copied. One that has expired meanwhile is passed over; any other refusal ends it."""
    refused: list[FineTuningError] = []

    def copy(source: str) -> bool:
        if refused or not in_time():
            return False
        try:
            objects.copy(source, keys[source])
        except ObjectMissingError:
            return False
        except FineTuningError as problem:
            refused.append(problem)
            return False
        return True

    with ThreadPoolExecutor(THREADS) as threads:
        copied = sum(threads.map(copy, keys))
    if refused:
        logger.warning("Latents could not be copied", problem=str(refused[0]), copied=copied, of=len(keys))
    return copied
