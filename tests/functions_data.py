"""Events, runs, files and images that the tests of the functions share."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

from PIL import Image

from fine_tuning.file_kinds import Kind, kind_of
from fine_tuning.inventory import InspectedFile
from fine_tuning.run import Run

REPOSITORY = Path(__file__).parent.parent
EVENTS = REPOSITORY / "events"
BUCKET = "sagemaker-kohya-ss-fine-tuning-111122223333"
IMAGE = "111122223333.dkr.ecr.us-east-1.amazonaws.com/kohya-ss-fine-tuning@sha256:" + "a" * 64
RUN = Run("cats-0123456789ab", BUCKET, "datasets/cats/", "datasets/cats/manifest.json", "v1")


def event(shape: str, /, **detail: Any) -> dict[str, Any]:
    """A real event shape of events/, with parts of its detail replaced."""
    document: dict[str, Any] = json.loads((EVENTS / f"{shape}.event.json").read_bytes())
    document["detail"] = {**document["detail"], **detail}
    return document


def dropped(key: str, version: str | None, bucket: str = BUCKET) -> dict[str, Any]:
    """S3's event for an object."""
    stored = {"key": key, "size": 15, "etag": "e", "sequencer": "0"}
    if version is not None:
        stored["version-id"] = version
    return event("s3-object-created", bucket={"name": bucket}, object=stored)


def image_bytes(width: int = 640, height: int = 480, format_name: str = "JPEG", **options: Any) -> bytes:
    """A picture of noise that no decoder can guess."""
    content = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(content, format_name, **options)
    return content.getvalue()


def file(
    path: str, width: int | None = None, height: int | None = None, kind: Kind | None = None
) -> InspectedFile:
    """An inspected file; an image of 1024 × 1024 pixels where nothing is said."""
    is_kind = kind or kind_of(path)
    size = (width or 1024, height or 1024) if is_kind == "image" else (None, None)
    return InspectedFile(path, 10, f"etag of {path}", "v", f"sha of {path}", is_kind, *size)


def unreadable(path: str) -> InspectedFile:
    return InspectedFile(path, 10, "e", "v", "s", "image")


def safetensors(tensors: int = 2, metadata: dict[str, str] | None = None) -> bytes:
    """A model file of `tensors` tensors with 4 bytes each."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    for number in range(tensors):
        offsets = [4 * number, 4 * number + 4]
        header[f"lora_unet_{number}.lora_down.weight"] = {
            "dtype": "F32",
            "shape": [1],
            "data_offsets": offsets,
        }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\x00\x00\x80?" * tensors
