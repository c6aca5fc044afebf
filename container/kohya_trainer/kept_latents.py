"""Latents beside the run's states, where a restart finds them: an image's takes the GPU a tenth of a second.

checkpoints/latents/<digest>/train/<folder>/<image>_<width>x<height>_sdxl.npz, written by the trainer itself
(cache_latents_to_disk), which believes what it finds there: so the digest stands for all that they are made of, a file
gets its name when it is whole, and one that came back damaged is deleted before the trainer looks.
"""

import os
import zipfile
from collections.abc import Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from kohya_trainer.checkpoints import fingerprint

PARTIAL = ".partial.npz"


def folder_of_latents(
    checkpoints: Path,
    config: Mapping[str, Any],
    dataset: str,
    base_model: Mapping[str, Any],
    files: list[Path],
) -> Path:
    """`base_model` is its record; `files` are what it and its VAE were read from, told apart by their sizes."""
    made_of = {**config, "base_model": dict(base_model), "sizes": [file.stat().st_size for file in files]}
    return checkpoints / "latents" / fingerprint(made_of, dataset, 1)[:16]


def drop_damaged(folder: Path) -> int:
    """The number of whole ones that stay."""
    whole = 0
    for path in folder.rglob("*.npz"):
        if path.name.endswith(PARTIAL) or not _is_whole(path):
            path.unlink()
        else:
            whole += 1
    return whole


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "latents.npy" in archive.namelist() and archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError):
        return False


def keep_latents(strategy_sd: Any, folder: Path, dataset: Path) -> None:
    """Inside the trainer (library.strategy_sd): latents of images below `dataset` go to `folder`, each one whole."""
    strategy = strategy_sd.SdSdxlLatentsCachingStrategy
    own, save = strategy.get_latents_npz_path, strategy.save_latents_to_disk

    @wraps(own)
    def path_of(self: Any, absolute_path: str, image_size: tuple[int, int]) -> str:
        beside = own(self, absolute_path, image_size)
        relative = os.path.relpath(beside, dataset)
        if relative.startswith(os.pardir):
            return str(beside)
        place = folder / relative
        place.parent.mkdir(parents=True, exist_ok=True)
        return str(place)

    @wraps(save)
    def save_whole(self: Any, npz_path: str, *given: Any, **named: Any) -> None:
        partial = npz_path.removesuffix(".npz") + PARTIAL
        save(self, partial, *given, **named)
        Path(partial).replace(npz_path)

    strategy.get_latents_npz_path = path_of
    strategy.save_latents_to_disk = save_whole
