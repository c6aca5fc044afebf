"""Latents that a new run takes over from earlier ones, so that its GPU need not encode the same images again.

Pure: of which runs, and which files. Whether they fit is decided by the container's own digest, a folder's name
(container/kohya_trainer/kept_latents.py): what does not fit is not found, and encoded as if it were not there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from fine_tuning import folder_names, latent_options
from fine_tuning.inventory import InspectedFile
from fine_tuning.run import Run, checkpoints_of

# The container tells their trainer where latents lie (kohya_trainer/environment.py, HOOKED_VERSIONS); any other looks
# beside the images.
READING_VERSIONS = frozenset({"v25.2.2"})
# Whole ones: what the trainer is still writing has another name.
_FILE = re.compile(r"([0-9a-f]{64})_\d+x\d+_sdxl\.npz")


def made_with(run: Run, plan: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """What two runs must have in common, captions, learning rate and the like aside: 64 hexadecimal digits.

    Args:
        plan: plan.json; `options`: of config.toml.
    """
    parts = {
        "dataset": run.dataset_prefix,
        "options": latent_options.latent_options(options),
        "base_model": plan["base_model"],
        "kohya_version": plan["kohya_version"],
    }
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def images(plan: Mapping[str, Any], files: Iterable[InspectedFile]) -> frozenset[str]:
    """The sha256 of every image that the trainer will see."""
    placed = {file["source"] for folder in plan["layout"] for file in folder["files"]}
    return frozenset(file.sha256 for file in files if file.kind == "image" and file.path in placed)


def are_read(plan: Mapping[str, Any], files: Iterable[InspectedFile], options: Mapping[str, Any]) -> bool:
    """Whether the trainer will look for latents in files: where it holds them in memory, none are of use to it.

    Args:
        options: of config.toml.
    """
    trained_on = {
        file["source"]
        for folder in plan["layout"]
        if not folder["folder"].startswith(folder_names.REGULARIZATION_FOLDER)
        for file in folder["files"]
    }
    count = sum(file.kind == "image" and file.path in trained_on for file in files)
    chosen_by_user = plan.get("chosen_by_user", ())
    return plan["kohya_version"] in READING_VERSIONS and latent_options.kept(options, chosen_by_user, count)


def folder(run_id: str) -> str:
    """Of a run that is no retry: a retry has its first run's."""
    return f"{checkpoints_of(run_id)}latents/"


def kept(listed: Iterable[tuple[str, datetime]]) -> dict[str, str]:
    """sha256 of an image → key of its latents.

    Only the newest count: others are of an older container, or of a base model that was exchanged.

    Args:
        listed: key, and when it was written.
    """
    found: dict[str, str] = {}
    for key, _ in sorted(listed, key=lambda each: each[1]):
        if name := _FILE.fullmatch(key.rpartition("/")[2]):
            found[name[1]] = key
    return found


def copies(found: Mapping[str, str], wanted: Collection[str], source: str, target: str) -> dict[str, str]:
    """Key of wanted latents → key in the new run's folder; `source` and `target` are folders of two runs."""
    return {
        key: target + key.removeprefix(source) for content, key in sorted(found.items()) if content in wanted
    }
