"""A dataset folder on its way into the bucket."""

import mimetypes
import random
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local.cli.failure import CommandError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Dropped:
    """`manifest_version` is what S3 called this upload; `at` is when S3 had the manifest."""

    bucket: str
    manifest_key: str
    manifest_version: str
    files: int
    size: int
    at: datetime


def files_of(folder: Path) -> list[Path]:
    """Every file of the dataset, hidden ones aside. Raises CommandError when it cannot be a dataset."""
    if not folder.is_dir():
        raise CommandError(f"{folder} is no folder")
    if not (folder / MANIFEST).is_file():
        raise CommandError(
            f"{folder} holds no {MANIFEST}, and without it nothing starts. The smallest is "
            '{"version": 1}; examples/photographs/manifest.json shows more.'
        )
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def prefix_of(folder: Path) -> str:
    """`datasets/<name>/`; what S3 keys do not take kindly to becomes a hyphen."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-.")
    return f"datasets/{name or 'dataset'}/"


def left_over(s3: Any, bucket: str, folder: Path) -> list[str]:
    """What an earlier drop left below the dataset's prefix and the folder holds no more, relative to the prefix."""
    prefix = prefix_of(folder)
    here = {path.relative_to(folder).as_posix() for path in files_of(folder)}
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    there = (item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", []))
    return sorted(name for name in there if name and name not in here)


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
