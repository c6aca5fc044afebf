"""Reads every file of a shard."""

from __future__ import annotations

import json

from fine_tuning import inspection
from fine_tuning.aws.objects import Objects
from fine_tuning.errors import DatasetChangedError, ObjectMissingError
from fine_tuning.findings import Finding
from fine_tuning.inventory import InspectedFile, InventoryFile
from fine_tuning.manifest import DeclaredFile
from fine_tuning.paths import shown
from fine_tuning.run import Run, result_key_of
from fine_tuning.steps.reading import read_manifest


def inspect_shard(run: Run, shard_key: str, objects: Objects) -> dict[str, str]:
    """Writes the shard's result; the answer is its key."""
    manifest = read_manifest(run, objects)
    declared = inspection.by_path(manifest.files)
    files = [InventoryFile.from_document(document) for document in objects.read_document(shard_key)["files"]]
    findings: list[Finding] = []
    results: list[InspectedFile] = []
    for file in files:
        result, found = _inspect(run, file, declared.get(file.path), manifest.trigger_word, objects)
        results.append(result)
        findings += found
    key = result_key_of(shard_key)
    document = {
        "files": [file.as_document() for file in results],
        "findings": [finding.as_document() for finding in findings],
    }
    objects.write(key, json.dumps(document).encode(), "application/json")
    return {"key": key}


def _inspect(
    run: Run, file: InventoryFile, declared: DeclaredFile | None, trigger_word: str | None, objects: Objects
) -> tuple[InspectedFile, list[Finding]]:
    def read() -> bytes:
        return objects.read(run.dataset_prefix + file.path, file.version_id)

    try:
        return inspection.read_and_inspect(file, read, declared, trigger_word)
    except ObjectMissingError as cause:
        raise DatasetChangedError(
            f"{shown(file.path)} was deleted while the dataset was inspected.",
            "Leave the files in place until the run is over.",
        ) from cause
