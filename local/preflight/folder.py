"""A dataset on the disk, taken through the same judgements as one in the bucket."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fine_tuning import inspection, inventory, manifest, plan, upload
from fine_tuning.findings import Finding
from fine_tuning.inventory import InspectedFile, InventoryFile, ListedObject
from fine_tuning.limits import Limits
from fine_tuning.manifest import Manifest
from fine_tuning.plan import Decision
from fine_tuning.report import rejection, report
from fine_tuning.run import MANIFEST_NAME, TOML_NAME, Run
from local.dataset_folder import files_of

# The bucket that the dataset will be dropped into is not known; a base model in any bucket may be in that one.
_SOME_BUCKET = "the-bucket"


@dataclass(frozen=True)
class Judged:
    """`report` is report.json; `decision` is None where the manifest or the set of files already says no."""

    report: dict[str, Any]
    images: int = 0
    decision: Decision | None = None


def judge(folder: Path, limits: Limits, on_file: Callable[[int, int], None]) -> Judged:
    """As validate_manifest, take_inventory, inspect_shard and plan_run do one after the other.

    Raises NoDatasetError where the folder holds nothing to judge.

    Args:
        on_file: called with the files inspected so far and all that there are.
    """
    listing = _listing(folder)
    content = folder / MANIFEST_NAME
    oversize = manifest.too_large(content.stat().st_size)
    accepted, findings = (None, [oversize]) if oversize else manifest.judge(content.read_bytes())
    if accepted is None:
        return Judged(rejection(findings))
    now = datetime.now(UTC)
    state = upload.completeness(listing, [], now, accepted, now, now, settle_seconds=0, upload_wait_seconds=0)
    files = [listed.file for listed in inventory.without_manifest(listing)]
    if state.status != "complete":
        return Judged(rejection(state.findings), upload.count_images(listing))
    inspected, found = _inspect(folder, files, accepted, on_file)
    toml = (folder / TOML_NAME).read_bytes() if (folder / TOML_NAME).is_file() else None
    decision = plan.plan(_run(folder, accepted), accepted, inspected, toml, found, limits)
    return Judged(report(decision), upload.count_images(listing), decision)


def _listing(folder: Path) -> list[ListedObject]:
    """What a drop would upload."""
    now = datetime.now(UTC)
    return [
        ListedObject(InventoryFile(path.relative_to(folder).as_posix(), path.stat().st_size, "", None), now)
        for path in files_of(folder)
    ]


def _inspect(
    folder: Path, files: Sequence[InventoryFile], accepted: Manifest, on_file: Callable[[int, int], None]
) -> tuple[list[InspectedFile], list[Finding]]:
    declared = inspection.by_path(accepted.files)

    def one(file: InventoryFile) -> tuple[InspectedFile, list[Finding]]:
        read = (folder / file.path).read_bytes
        return inspection.read_and_inspect(file, read, declared.get(file.path), accepted.trigger_word)

    results: list[InspectedFile] = []
    findings: list[Finding] = []
    # Decoding and hashing release the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for number, (result, found) in enumerate(threads.map(one, files), 1):
            results.append(result)
            findings += found
            on_file(number, len(files))
    return results, findings


def _run(folder: Path, accepted: Manifest) -> Run:
    address = accepted.base_model or ""
    bucket = address.removeprefix("s3://").partition("/")[0] if address.startswith("s3://") else _SOME_BUCKET
    return Run.of_manifest(bucket, f"datasets/{folder.resolve().name}/{MANIFEST_NAME}", "null")
