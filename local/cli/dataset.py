"""A dataset folder on its way into the bucket."""

import mimetypes
import random
import re
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local.dataset_folder import MANIFEST, files_of

AT_ONCE = 10  # as `aws s3 cp` does
FILES_A_LINE = 500


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


def drop(
    s3: Any,
    bucket: str,
    folder: Path,
    order: random.Random | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Dropped:
    """Upload the folder, the manifest last, so that a run begins when all of it is there.

    What interrupts it before leaves no new manifest behind.

    Args:
        order: shuffles all of it instead, the manifest among the rest, as any upload may arrive; one after the other.
        say: is told how far it is.
    """
    prefix, manifest = prefix_of(folder), folder / MANIFEST
    files = [path for path in files_of(folder) if path != manifest]
    size = sum(path.stat().st_size for path in (*files, manifest))

    def put(path: Path) -> None:
        s3.upload_file(
            str(path), bucket, prefix + path.relative_to(folder).as_posix(), ExtraArgs=content_type(path)
        )

    later: list[Path] = []
    if order:
        place = order.randint(0, len(files))
        order.shuffle(files)
        files, later = files[:place], files[place:]
    say(f"uploading {len(files) + len(later) + 1} files ({size / 1e6:.1f} MB)")
    upload(files, put, 1 if order else AT_ONCE, say)
    answer = s3.put_object(
        Bucket=bucket, Key=prefix + MANIFEST, Body=manifest.read_bytes(), **content_type(manifest)
    )
    dropped_at = datetime.now(UTC)
    upload(later, put, 1, say)
    version, count = answer.get("VersionId", ""), len(files) + len(later) + 1
    return Dropped(bucket, prefix + MANIFEST, version, count, size, dropped_at)


def upload(
    files: Sequence[Path], put: Callable[[Path], None], at_once: int, say: Callable[[str], None]
) -> None:
    """All of them. The first that fails, or an interruption, ends it: those that have begun end, no other begins."""
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="upload")
    try:
        for done, one in enumerate(as_completed([pool.submit(put, path) for path in files]), 1):
            one.result()
            if done % FILES_A_LINE == 0:
                say(f"{done} of {len(files)} uploaded")
    finally:
        pool.shutdown(cancel_futures=True)


def content_type(path: Path) -> dict[str, str]:
    return {"ContentType": mimetypes.guess_type(path.name)[0] or "application/octet-stream"}
