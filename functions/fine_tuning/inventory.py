"""What lies under a dataset's prefix, whether it is all there, and how the work of reading it is divided."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Any, Literal

from fine_tuning.findings import Finding, error
from fine_tuning.manifest import Manifest, same_name
from fine_tuning.run import MANIFEST_NAME

# What the trainer opens (sd-scripts, library/train_util.py, IMAGE_EXTENSIONS), without regard to case.
TRAINABLE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# Images that people drop and the trainer passes over: named in a finding instead of being silently ignored.
OTHER_IMAGE_EXTENSIONS = (
    *(
        ".gif",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".avif",
        ".jxl",
        ".jp2",
        ".jfif",
        ".jpe",
        ".ico",
        ".tga",
        ".dds",
    ),
    *(".psd", ".xcf", ".svg", ".pdf", ".eps", ".ai", ".exr", ".hdr"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),  # raw files of cameras
    *(".mp4", ".mov", ".webm"),
)
CAPTION_EXTENSIONS = (".txt", ".caption")
_LITTER = ("thumbs.db", "desktop.ini", "metadata_cache.json")
_FIRST_WAIT_SECONDS = 5
_LONGEST_WAIT_SECONDS = 60

Kind = Literal["image", "caption", "other"]


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
class Completeness:
    """Whether the upload is over.

    Attributes:
        missing: declared files, or images, that are not there (as declared).
        wait_seconds: when to look again, while waiting.
        findings: what is missing: why an expired upload is rejected, or what is waited for.
        stands_still: something is missing, and nothing has come for as long as an upload needs to settle.
    """

    status: Literal["complete", "waiting", "expired"]
    missing: int
    wait_seconds: int
    findings: tuple[Finding, ...] = ()
    stands_still: bool = False


def kind_of(path: str) -> Kind:
    """By the file's name alone; reading it may say otherwise."""
    if is_litter(path):
        return "other"
    extension = PurePosixPath(path).suffix.lower()
    if extension in TRAINABLE_EXTENSIONS:
        return "image"
    return "caption" if extension in CAPTION_EXTENSIONS else "other"


def is_litter(path: str) -> bool:
    """Whether a system leaves such files behind: hidden ones, macOS' `._a.jpg` and `__MACOSX/`, Thumbs.db."""
    parts = path.split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1].lower() in _LITTER


def without_manifest(objects: Iterable[ListedObject]) -> list[ListedObject]:
    """The dataset's files.

    No manifest of this or a nested dataset's folder root, no folder markers, sorted by path.
    """
    kept = (
        o for o in objects if o.file.path != MANIFEST_NAME and o.file.path and not o.file.path.endswith("/")
    )
    return sorted(kept, key=lambda listed: listed.file.path)


def completeness(
    listing: Sequence[ListedObject],
    manifest: Manifest,
    started_at: datetime,
    now: datetime,
    settle_seconds: int,
    upload_wait_seconds: int,
) -> Completeness:
    """Whether every declared file has arrived and nothing has been added for a while.

    A file that is there in another size than declared may still be on its way, so it counts as missing; an
    upload whose files are all declared has nothing to settle.

    Args:
        listing: every object below the prefix. The manifest is one of them, because it may be the first to
            arrive: then everything else is still on its way.
    """
    objects = without_manifest(listing)
    missing = _missing(objects, manifest)
    newest = max((listed.modified for listed in listing), default=started_at)
    quiet_seconds = (now - newest).total_seconds()
    unsettled = 0.0 if manifest.files else settle_seconds - quiet_seconds
    if not missing and unsettled <= 0:
        return Completeness("complete", 0, 0)
    if now - started_at >= timedelta(seconds=upload_wait_seconds):
        # Files that keep coming hold nothing back for ever: what is there and complete is taken.
        if not missing:
            return Completeness("complete", 0, 0)
        return Completeness("expired", _count(missing, manifest, objects), 0, tuple(missing))
    first = min(_FIRST_WAIT_SECONDS, settle_seconds) if missing else unsettled
    wait = _wait_seconds(first, (now - started_at).total_seconds())
    stands_still = bool(missing) and quiet_seconds >= settle_seconds
    return Completeness("waiting", _count(missing, manifest, objects), wait, tuple(missing), stands_still)


def _wait_seconds(first: float, waited: float) -> int:
    """When to look again: `first`, or a tenth of the time waited where that is longer, at most a minute.

    A look is 9 events of Step Functions' history, which ends at 25,000. Waits of 5 s and more reach a minute
    after ten minutes and about 36 looks (10 in the first 50 s, then each 1.1 times the one before); short
    settle times add less than 50. The rest of a day, the longest upload, takes 1,430 looks: at most 1,520
    looks or 13,700 events.
    """
    return max(1, math.ceil(min(_LONGEST_WAIT_SECONDS, max(first, waited / 10))))


def _missing(objects: Sequence[ListedObject], manifest: Manifest) -> list[Finding]:
    remedy = "Upload it beside the manifest, then drop the manifest again."
    present = {listed.file.path: listed.file.size for listed in objects}
    findings: list[Finding] = []
    for declared in manifest.files:
        size = present.get(declared.path)
        if declared.path == MANIFEST_NAME:
            continue
        if size is None:
            findings.append(
                error(
                    "file-missing", declared.path, "The manifest lists this file; it has not arrived.", remedy
                )
            )
        elif declared.size is not None and size != declared.size:
            message = f"The manifest says {declared.size} bytes; {size} bytes arrived."
            findings.append(error("file-size-differs", declared.path, message, remedy))
    if manifest.images is not None and (found := count_images(objects)) < manifest.images:
        message = f"The manifest announces {manifest.images} images; {found} arrived."
        wanted = "Upload the rest, or correct `images`, then drop the manifest again."
        findings.append(error("images-missing", "", message, wanted))
    return findings


def _count(missing: Sequence[Finding], manifest: Manifest, objects: Sequence[ListedObject]) -> int:
    return len(missing) if manifest.images is None else max(0, manifest.images - count_images(objects))


def count_images(objects: Iterable[ListedObject]) -> int:
    return sum(kind_of(listed.file.path) == "image" for listed in objects)


# docs/scale.md: what a state's payload and an execution's history hold, with room for retries.
MOST_SHARDS = 2_000


def into_shards(files: Sequence[InventoryFile], shard_size: int) -> list[list[InventoryFile]]:
    """Shards of about `shard_size` files, of more where there would be too many of them.

    An image and its captions are never parted, so a shard may be a little larger.
    """
    shard_size = max(shard_size, math.ceil(len(files) / (MOST_SHARDS - 1)))
    shards: list[list[InventoryFile]] = []
    groups: dict[str, list[InventoryFile]] = {}
    for file in files:
        groups.setdefault(pair_of(file.path), []).append(file)
    for group in groups.values():
        if not shards or len(shards[-1]) + len(group) > shard_size:
            shards.append([])
        shards[-1].extend(group)
    return shards


def stem_of(path: str) -> str:
    """`10_cat/a.jpg` → `10_cat/a`: what an image and its caption have in common."""
    return str(PurePosixPath(path).with_suffix(""))


def pair_of(path: str) -> str:
    """What an image and its caption have in common when case and the writing of accents are overlooked.

    macOS takes accents apart in names that other systems write composed; Windows keeps any case.
    """
    return same_name(stem_of(path))


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
