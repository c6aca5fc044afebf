"""Which of image, build and source decides how a run comes to its training image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

# 60 minutes in CodeBuild's queue and 120 at work, as template.yaml has it.
LONGEST_BUILD = timedelta(hours=3)
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 15, 3600
_SHARE_OF_THE_WAIT = 30


@dataclass(frozen=True)
class Build:
    """A build of the image. `commit`: what it was started for, as far as it says."""

    build_id: str
    status: Literal["IN_PROGRESS", "SUCCEEDED", "FAILED", "FAULT", "TIMED_OUT", "STOPPED"]
    commit: str | None


@dataclass(frozen=True)
class ImageDecision:
    """What to do next. `starts_build`: nothing is building the source's tip, and somebody must."""

    status: Literal["ready", "building", "failed", "no_source"]
    build_id: str | None = None
    starts_build: bool = False


def decide(image: str | None, builds: Sequence[Build], commit: str | None) -> ImageDecision:
    """The image if there is one; else the running build; else a build of the source's tip.

    Args:
        image: uri with digest of the image tagged `latest`.
        builds: the newest first.
        commit: tip of the source's main branch, None before the first push.
    """
    if image is not None:
        return ImageDecision("ready")
    running = next((build for build in builds if build.status == "IN_PROGRESS"), None)
    if running is not None:
        return ImageDecision("building", running.build_id)
    if commit is None:
        return ImageDecision("no_source")
    newest = builds[0] if builds else None
    # A build stopped by a person, or one of an older commit, says nothing about this commit. One that says no
    # commit was of the tip at its time, so it counts.
    if (
        newest is not None
        and newest.status in ("FAILED", "FAULT", "TIMED_OUT")
        and newest.commit in (commit, None)
    ):
        return ImageDecision("failed", newest.build_id)
    if newest is not None and newest.status == "SUCCEEDED" and newest.commit == commit:
        # It succeeded and yet there is no image: whoever deleted the image wants it built, but the same
        # idempotency token would only return the old build for five minutes, which then counts as running or
        # done.
        return ImageDecision("building", newest.build_id, starts_build=True)
    return ImageDecision("building", None, starts_build=True)


def wait_seconds(waited: timedelta) -> int:
    """When to look again for an image that is being built: a thirtieth of the time waited, 15 s at least.

    A look is 9 events of Step Functions' history, which ends at 25,000 (docs/scale.md). The longest build takes 128
    looks; after half an hour one comes each minute.
    """
    share = int(waited.total_seconds()) // _SHARE_OF_THE_WAIT
    return min(_LONGEST_WAIT_SECONDS, max(_FIRST_WAIT_SECONDS, share))
