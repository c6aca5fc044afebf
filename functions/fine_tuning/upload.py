"""Whether a dataset's upload is over."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from fine_tuning.file_kinds import kind_of
from fine_tuning.findings import Finding, error
from fine_tuning.inventory import ListedObject, UnfinishedUpload, as_lines, without_manifest
from fine_tuning.manifest import Manifest
from fine_tuning.run import MANIFEST_NAME

_FIRST_WAIT_SECONDS = 5
_LONGEST_WAIT_SECONDS = 120
# Of a large file nothing is seen until all of it is there, so it is given so many times as long before it is told of.
_PATIENCE_WITH_UNFINISHED = 10


@dataclass(frozen=True)
class Sighting:
    """A listing, and since when every look has found the same.

    How old the newest object is does not tell how long an upload has been quiet: S3 dates an object that came in
    several parts by the beginning of its upload (User Guide, "Working with object metadata").

    Attributes:
        digest: of every object's path and version, 64 hexadecimal digits.
        since: when a look first found them.
    """

    digest: str
    since: datetime

    @classmethod
    def of(cls, listing: Iterable[ListedObject], now: datetime, before: Sighting | None) -> Sighting:
        """`before`: of the look before this one; None at the first."""
        digest = hashlib.sha256(as_lines(listed.file for listed in listing)).hexdigest()
        return cls(digest, before.since if before and before.digest == digest else now)

    def as_document(self) -> dict[str, str]:
        return {"digest": self.digest, "since": self.since.isoformat()}

    @classmethod
    def from_document(cls, document: Mapping[str, str]) -> Sighting:
        return cls(document["digest"], datetime.fromisoformat(document["since"]))


@dataclass(frozen=True)
class Completeness:
    """What has come of it, and what has not.

    Attributes:
        wait_seconds: when to look again, while waiting.
        findings: what is missing: why an expired upload is rejected, or what is waited for.
        stands_still: something is missing, and nothing has come for as long as an upload needs to settle, or
            for ten times as long where a large file may be on its way.
    """

    status: Literal["complete", "waiting", "expired"]
    wait_seconds: int
    findings: tuple[Finding, ...] = ()
    stands_still: bool = False


def completeness(
    listing: Sequence[ListedObject],
    unfinished: Iterable[UnfinishedUpload],
    unchanged_since: datetime,
    manifest: Manifest,
    started_at: datetime,
    now: datetime,
    settle_seconds: int,
    upload_wait_seconds: int,
) -> Completeness:
    """Whether every file has arrived that is declared or on its way, and nothing has changed for a while.

    A file that is there in another size than declared may still be on its way, so it counts as missing; an
    upload whose files are all declared has nothing to settle.

    Args:
        listing: every object below the prefix. The manifest is one of them, because it may be the first to
            arrive: then everything else is still on its way.
        unchanged_since: of the listing's Sighting.
    """
    objects = without_manifest(listing)
    missing = _missing(objects, manifest)
    oldest = now - timedelta(seconds=upload_wait_seconds)
    going_on = [] if manifest.files else _going_on(unfinished, objects, oldest)
    missing += [_unfinished(upload) for upload in going_on]
    quiet_seconds = (now - unchanged_since).total_seconds()
    unsettled = 0.0 if manifest.files else settle_seconds - quiet_seconds
    if not missing and unsettled <= 0:
        return Completeness("complete", 0)
    if now - started_at >= timedelta(seconds=upload_wait_seconds):
        # Files that keep coming hold nothing back for ever: what is there and complete is taken.
        if not missing:
            return Completeness("complete", 0)
        return Completeness("expired", 0, tuple(missing))
    first = min(_FIRST_WAIT_SECONDS, settle_seconds) if missing else unsettled
    wait = _wait_seconds(first, (now - started_at).total_seconds())
    patience = settle_seconds * (_PATIENCE_WITH_UNFINISHED if going_on else 1)
    stands_still = bool(missing) and quiet_seconds >= patience
    return Completeness("waiting", wait, tuple(missing), stands_still)


def _wait_seconds(first: float, waited: float) -> int:
    """When to look again: `first`, or a tenth of the time waited where that is longer, at most two minutes.

    A look is 9 events of Step Functions' history, which ends at 25,000 (docs/scale.md). Waits of 5 s and more reach
    two minutes after twenty and about 43 looks (10 in the first 50 s, then each 1.1 times the one before). The rest
    of six hours, the longest upload, takes 170; with what a short settle time adds, 227 at most.
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


def _going_on(
    unfinished: Iterable[UnfinishedUpload], objects: Sequence[ListedObject], oldest: datetime
) -> list[UnfinishedUpload]:
    """Without uploads that were given up, which lie there until the bucket's life cycle clears them away.

    Given up: begun longer ago than any file is waited for, or no later than the upload of the object that has the
    name now, by which S3 dates that object.
    """
    arrived = {listed.file.path: listed.modified for listed in objects}
    return [
        upload
        for upload in sorted(unfinished, key=lambda upload: (upload.path, upload.begun))
        if upload.path != MANIFEST_NAME
        and upload.begun > oldest
        and (upload.path not in arrived or upload.begun > arrived[upload.path])
    ]


def _unfinished(upload: UnfinishedUpload) -> Finding:
    message = f"Its upload, begun at {upload.begun:%H:%M:%S} UTC, is not over."
    remedy = "Let it end, or upload the file again, then drop the manifest again."
    return error("upload-unfinished", upload.path, message, remedy)


def count_images(objects: Iterable[ListedObject]) -> int:
    return sum(kind_of(listed.file.path) == "image" for listed in objects)
