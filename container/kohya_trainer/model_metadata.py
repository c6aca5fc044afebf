"""What a delivered model says of itself: the fields of ModelSpec that other tools read, and its provenance.

Source: github.com/Stability-AI/ModelSpec; Kohya writes part of the fields (library/sai_model_spec.py).
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kohya_trainer.safetensors_header import read_header

PROVENANCE = "fine_tuning.provenance"
# Where Kohya writes captions' tags and the names of folders.
NAMES_AND_TAGS = frozenset(
    {
        "modelspec.tags",
        "ss_dataset_dirs",
        "ss_datasets",
        "ss_reg_dataset_dirs",
        "ss_tag_frequency",
        "ss_training_comment",
    }
)
_BLOCK = 1 << 20


def delivered_metadata(
    written: Mapping[str, str], facts: Mapping[str, Any], tensors_sha256: str, private: bool
) -> dict[str, str]:
    """The trainer's own metadata with what the run knows besides; a private run's without names and tags."""
    metadata = {
        "modelspec.sai_model_spec": "1.0.0",
        **{name: value for name, value in written.items() if not (private and name in NAMES_AND_TAGS)},
        "modelspec.hash_sha256": f"0x{tensors_sha256}",
        PROVENANCE: json.dumps(facts, ensure_ascii=False, sort_keys=True),
    }
    for field, fact in (("license", "licence"), ("trigger_phrase", "trigger_word")):
        if facts.get(fact):
            metadata[f"modelspec.{field}"] = str(facts[fact])
    return metadata


def read_metadata(model: Path) -> dict[str, str]:
    """The texts in a safetensors file's header."""
    with model.open("rb") as file:
        header, _ = read_header(file)
    return dict(header.get("__metadata__") or {})


def tensors_sha256(model: Path) -> str:
    """Of everything behind the header, as ModelSpec's hash_sha256 has it."""
    digest = hashlib.sha256()
    with model.open("rb") as file:
        read_header(file)
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_with_metadata(model: Path, target: Path, metadata: Mapping[str, str]) -> None:
    """Copies a safetensors file with other metadata; the tensors stay as they are."""
    with model.open("rb") as source:
        header, _ = read_header(source)
        header["__metadata__"] = dict(metadata)
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)  # the format aligns the tensors so
        with target.open("wb") as copy:
            copy.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(source, copy, _BLOCK)
