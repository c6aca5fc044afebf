"""Proves the model before anybody is told of success."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fine_tuning import model_file
from fine_tuning.aws.objects import Objects, StoredObject
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.errors import ModelNotProvenError
from fine_tuning.model_file import LENGTH_BYTES, REMEDY, ProvenFile
from fine_tuning.run import Run

_PROVENANCE = "provenance.json"
_LARGEST_PROVENANCE = 4 * 1024 * 1024  # bytes


def verify_model(
    run: Run, observation: Mapping[str, Any], objects: Objects, records: RunRecords
) -> dict[str, Any]:
    """The model's address, size, sha256 and number of tensors, each seen in S3 itself; and what to draw with."""
    records.advance(run.run_id, "VERIFYING")
    stored = {listed.key: listed for listed in objects.list_below(_prefix(run, observation, objects.bucket))}
    provenance_key = _one_named(_PROVENANCE, stored)
    if stored[provenance_key].size > _LARGEST_PROVENANCE:
        raise ModelNotProvenError(f"{_PROVENANCE} has {stored[provenance_key].size} bytes.", REMEDY)
    provenance = model_file.read_provenance(objects.read(provenance_key))
    folder = provenance_key[: -len(_PROVENANCE)]
    key = folder + provenance.model.name
    header = _prove(key, stored.get(key), provenance.model, objects)
    verified = {
        "model": {
            "uri": run.uri(key),
            "size": provenance.model.size,
            "sha256": provenance.model.sha256,
            "tensors": header.tensors,
        },
        "provenance_uri": run.uri(provenance_key),
        "samples": [
            run.uri(one)
            for one in sorted(stored)
            if one.startswith(f"{folder}samples/") and one.endswith(".png")
        ],
        "base_model": provenance.base_model,
        "trigger_word": provenance.trigger_word,
        "rehearsal": provenance.rehearsal or header.metadata.get("rehearsal") == "true",
    }
    # Should the flow fail to tell of it, the record knows all that is to be told.
    records.note(run.run_id, {"verified": verified, "observation": dict(observation)})
    return verified


def _prefix(run: Run, observation: Mapping[str, Any], bucket: str) -> str:
    """Where the job's output lies. SageMaker names the folder `…/output/model/` for plain files."""
    artifact = str(observation.get("artifact") or "")
    expected = f"{run.prefix}output/"
    if not artifact.startswith(f"s3://{bucket}/{expected}"):
        said = f"at {artifact}" if artifact else "nowhere"
        raise ModelNotProvenError(f"SageMaker says that the model lies {said}, not below {expected}.", REMEDY)
    key = artifact[len(f"s3://{bucket}/") :]
    return key if key.endswith("/") else f"{key}/"


def _one_named(name: str, stored: Mapping[str, StoredObject]) -> str:
    keys = [key for key in stored if key.rpartition("/")[2] == name]
    if len(keys) != 1:
        raise ModelNotProvenError(
            f"The job's output holds {len(keys)} files named {name} instead of one.", REMEDY
        )
    return keys[0]


def _prove(
    key: str, stored: StoredObject | None, proven: ProvenFile, objects: Objects
) -> model_file.ModelHeader:
    if stored is None:
        raise ModelNotProvenError(f"The model {proven.name} is not in the job's output.", REMEDY)
    if stored.size != proven.size:
        message = f"The model {proven.name} has {stored.size} bytes; the container wrote {proven.size}."
        raise ModelNotProvenError(message, REMEDY)
    length = model_file.header_length(objects.read_range(key, 0, LENGTH_BYTES), stored.size)
    header = model_file.read_header(objects.read_range(key, LENGTH_BYTES, length), stored.size)
    if objects.sha256(key) != proven.sha256:
        raise ModelNotProvenError(f"The model {proven.name} is not the one that the container wrote.", REMEDY)
    return header
