"""A safetensors file, judged by its header: https://github.com/huggingface/safetensors#format.

The first 8 bytes are the header's length N (little endian), the next N bytes JSON; tensor data follows
without gaps, so the last offset tells how long the file must be.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fine_tuning.base_model import BaseModel
from fine_tuning.errors import ModelNotProvenError

LENGTH_BYTES = 8
LARGEST_HEADER = 16 * 1024 * 1024  # bytes; a LoRA's header has about 300 KB
REMEDY = "Read the training job's log in CloudWatch and mend the cause."


@dataclass(frozen=True)
class ModelHeader:
    """What the header says. `tensors`: how many."""

    tensors: int
    metadata: dict[str, str]


def header_length(first_bytes: bytes, file_size: int) -> int:
    """Bytes of the JSON header, out of the file's first eight."""
    if len(first_bytes) != LENGTH_BYTES:
        raise ModelNotProvenError(f"The model has only {file_size} bytes.", REMEDY)
    length: int = struct.unpack("<Q", first_bytes)[0]
    if not 2 <= length <= min(LARGEST_HEADER, file_size - LENGTH_BYTES):
        raise ModelNotProvenError(f"The model's header claims {length} bytes.", REMEDY)
    return length


def read_header(header: bytes, file_size: int) -> ModelHeader:
    """The header of a file of `file_size` bytes, proved to fit it."""
    try:
        document: dict[str, Any] = json.loads(header)
        metadata = document.pop("__metadata__", {})
        ends = [_end(tensor) for tensor in document.values()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as cause:
        raise ModelNotProvenError("The model's header is not that of a safetensors file.", REMEDY) from cause
    if not ends:
        raise ModelNotProvenError("The model holds no tensor.", REMEDY)
    expected = LENGTH_BYTES + len(header) + max(ends)
    if expected != file_size:
        message = f"The model's header describes {expected} bytes, the file has {file_size}."
        raise ModelNotProvenError(message, REMEDY)
    return ModelHeader(len(ends), {str(k): str(v) for k, v in metadata.items()})


def _end(tensor: dict[str, Any]) -> int:
    begin, end = tensor["data_offsets"]
    if not 0 <= begin <= end:
        raise ValueError(f"offsets {begin} to {end}")
    return int(end)


@dataclass(frozen=True)
class ProvenFile:
    """A file that provenance.json lists."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """The container's own account of what it made, and of what it was made for."""

    files: tuple[ProvenFile, ...]
    model_name: str
    rehearsal: bool
    base_model: str | None
    trigger_word: str | None

    @property
    def model(self) -> ProvenFile:
        """The LoRA of the last step; models of earlier epochs may lie beside it."""
        named = [file for file in self.files if file.name == self.model_name]
        if len(named) != 1 or not self.model_name.endswith(".safetensors"):
            raise ModelNotProvenError(f"provenance.json lists no model named {self.model_name!r}.", REMEDY)
        return named[0]


def read_provenance(content: bytes) -> Provenance:
    try:
        document = json.loads(content)
        files = tuple(ProvenFile(str(f["name"]), int(f["size"]), str(f["sha256"])) for f in document["files"])
        return Provenance(
            files=files,
            model_name=str(document["model"]),
            rehearsal=document.get("rehearsal") is True,
            base_model=_name_of(document.get("base_model") or {}),
            trigger_word=document.get("trigger_word"),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as cause:
        raise ModelNotProvenError(
            "provenance.json is not what the training container writes.", REMEDY
        ) from cause


def _name_of(told: Mapping[str, Any]) -> str | None:
    """Of a base model as the container tells of it; one that a hand-made configuration named has no revision."""
    if told.get("kind") not in ("hub", "channel"):
        return told.get("id")
    return BaseModel(told["kind"], str(told["id"]), told.get("revision"), told.get("file")).name
