"""What makes two runs the same: manifest, configuration, every file's digest, base model and image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fine_tuning.inventory import InspectedFile
from fine_tuning.statuses import is_in_flight

# Says what to do about a repetition, or what a run may cost; neither changes the model.
_WITHOUT_EFFECT = ("force", "max_cost_usd")


def identity(
    manifest: Mapping[str, Any], files: Sequence[InspectedFile], base_model: Mapping[str, Any], image: str
) -> str:
    """64 hexadecimal digits.

    Args:
        manifest: the document as dropped.
        files: the inventory, which holds the user's TOML too.
        base_model: of plan.json; an S3 file is known by its address, a hub model by its revision.
        image: uri with digest.
    """
    parts = {
        "manifest": {name: value for name, value in manifest.items() if name not in _WITHOUT_EFFECT},
        "files": sorted((file.path, file.sha256) for file in files),
        "base_model": dict(base_model),
        "image": image.rpartition("@")[2],
    }
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def is_repetition(claiming_status: str | None, forced: bool) -> bool:
    """Whether a run with this identity is answered by the one that claims it.

    After a failure it runs again.
    """
    if forced or claiming_status is None:
        return False
    return claiming_status == "COMPLETED" or is_in_flight(claiming_status)
