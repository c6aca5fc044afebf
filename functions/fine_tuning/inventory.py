"""The files under a dataset's prefix, as they are listed and as they are once they were read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from fine_tuning.file_kinds import Kind
from fine_tuning.run import MANIFEST_NAME


@dataclass(frozen=True)
class InventoryFile:
    """An object of the dataset as listed.

    Attributes:
        path: relative to the manifest's folder.
        size: bytes.
        version_id: S3 version; None where the bucket keeps none.
    """

    path: str
    size: int
    etag: str
    version_id: str | None

    def as_document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> InventoryFile:
        return cls(**{name: document[name] for name in ("path", "size", "etag", "version_id")})


@dataclass(frozen=True)
class InspectedFile:
    """An InventoryFile whose content was read.

    Attributes:
        width, height: pixels as they are stored, for images only: the trainer does not read EXIF orientation.
        tokens, lacks_trigger: of a caption (caption_check.Caption).
    """

    path: str
    size: int
    etag: str
    version_id: str | None
    sha256: str
    kind: Kind
    width: int | None = None
    height: int | None = None
    tokens: int | None = None
    lacks_trigger: bool | None = None

    def as_document(self) -> dict[str, Any]:
        return {
            name: value for name, value in asdict(self).items() if name == "version_id" or value is not None
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> InspectedFile:
        return cls(**document)


@dataclass(frozen=True)
class ListedObject:
    """An object as S3 lists it: a file of the dataset and when it came to be."""

    file: InventoryFile
    modified: datetime


@dataclass(frozen=True)
class UnfinishedUpload:
    """An upload in parts that S3 knows of and that has not become an object. `path` as of an InventoryFile."""

    path: str
    begun: datetime


def without_manifest(objects: Iterable[ListedObject]) -> list[ListedObject]:
    """The dataset's files, sorted by path: neither its own manifest nor folder markers."""
    kept = (
        o for o in objects if o.file.path != MANIFEST_NAME and o.file.path and not o.file.path.endswith("/")
    )
    return sorted(kept, key=lambda listed: listed.file.path)


def as_lines(files: Iterable[InventoryFile | InspectedFile]) -> bytes:
    """One JSON document a line, in order of path, the same bytes for the same files."""
    ordered = sorted(files, key=lambda file: file.path)
    return "".join(f"{json.dumps(f.as_document(), ensure_ascii=False)}\n" for f in ordered).encode()


def from_lines(content: bytes) -> list[InspectedFile]:
    return [InspectedFile.from_document(json.loads(line)) for line in content.decode().splitlines() if line]


def inspected(file: InventoryFile, sha256: str, kind: Kind) -> InspectedFile:
    return InspectedFile(file.path, file.size, file.etag, file.version_id, sha256, kind)


def with_size(file: InspectedFile, width: int, height: int) -> InspectedFile:
    return replace(file, width=width, height=height)


def with_caption(file: InspectedFile, tokens: int | None, lacks_trigger: bool | None) -> InspectedFile:
    return replace(file, tokens=tokens, lacks_trigger=lacks_trigger)
