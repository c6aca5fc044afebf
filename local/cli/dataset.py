"""A dataset folder on its way into the bucket."""

import mimetypes
import random
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local.dataset_folder import MANIFEST, files_of


@dataclass(frozen=True)
class Dropped:
    """`manifest_version` is what S3 called this upload; `at` is when S3 had the manifest."""

    bucket: str
    manifest_key: str
    manifest_version: str
    files: int
    size: int
    at: datetime


def prefix_of(folder: Path) -> str:
    """`datasets/<name>/`: letters and digits of any script stay, whatever else is no `.`, `_` or `-` becomes a hyphen.

    Accents are composed, as on every system but macOS, so that a folder has one prefix wherever it is dropped from.
    """
    name = unicodedata.normalize("NFC", folder.resolve().name)
    kept = "".join(c if c in "._-" or unicodedata.category(c)[0] in "LMN" else " " for c in name)
    return f"datasets/{re.sub(' +', '-', kept).strip('-.') or 'dataset'}/"


def left_over(s3: Any, bucket: str, folder: Path) -> list[str]:
    """What the bucket holds as part of the dataset and the folder lacks, relative to the dataset's prefix.

    Hidden files and the markers of folders are no part of a dataset.
    """
    prefix = prefix_of(folder)
    here = {path.relative_to(folder).as_posix() for path in files_of(folder)}
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    there = (item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", []))
    return sorted(name for name in there if name not in here and not _is_aside(name))


def _is_aside(name: str) -> bool:
    return name == "" or name.endswith("/") or any(part.startswith(".") for part in name.split("/"))


def delete(s3: Any, bucket: str, folder: Path, names: Sequence[str]) -> None:
    """Delete what `left_over` named; the bucket keeps it as an old version."""
    for name in names:
        s3.delete_object(Bucket=bucket, Key=prefix_of(folder) + name)


def drop(s3: Any, bucket: str, folder: Path, order: random.Random | None = None) -> Dropped:
    """Upload the folder, the manifest last, so that a run begins when all of it is there.

    Args:
        order: shuffles all of it instead, the manifest among the rest, as any upload may arrive.
    """
    files = sorted(files_of(folder), key=lambda path: path == folder / MANIFEST)
    if order:
        order.shuffle(files)
    prefix = prefix_of(folder)
    manifest: dict[str, Any] = {}
    dropped_at = datetime.now(UTC)
    for path in files:
        key = prefix + path.relative_to(folder).as_posix()
        content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if path == folder / MANIFEST:
            manifest = s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes(), ContentType=content_type)
            dropped_at = datetime.now(UTC)
        else:
            s3.upload_file(str(path), bucket, key, ExtraArgs={"ContentType": content_type})
    return Dropped(
        bucket,
        prefix + MANIFEST,
        manifest.get("VersionId", ""),
        files=len(files),
        size=sum(path.stat().st_size for path in files),
        at=dropped_at,
    )
