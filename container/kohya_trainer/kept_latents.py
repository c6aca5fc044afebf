"""Latents beside the run's states, where a restart finds them, and where the functions put those of an earlier run:
an image's takes the GPU a tenth of a second.

checkpoints/latents/<digest>/<sha256 of the image>_<width>x<height>_sdxl.npz, written by the trainer itself
(cache_latents_to_disk), which believes what it finds there. So the digest stands for all else that they are made of
and for nothing more; a file gets its name when it is whole; and one that came back damaged is deleted before the
trainer looks.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Container, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from kohya_trainer.latent_options import latent_options
from kohya_trainer.vae_content import vae_sha256

PARTIAL = ".partial.npz"


def folder_of_latents(
    checkpoints: Path, options: Mapping[str, Any], base_model: Mapping[str, Any], trainer: str
) -> Path:
    """`options` are the trainer's, complete; `base_model` is its record, for one that the trainer itself fetches."""
    source = options.get("vae") or options.get("pretrained_model_name_or_path") or ""
    path = Path(source)
    made_of = {
        "options": latent_options(options),
        "vae": vae_sha256(path) if source and path.exists() else [source, dict(base_model)],
        "trainer": trainer,
    }
    text = json.dumps(made_of, sort_keys=True, default=str)
    return checkpoints / "latents" / hashlib.sha256(text.encode()).hexdigest()[:16]


def drop_damaged(folder: Path, contents: Container[str]) -> int:
    """The number of images, by the sha256 of their contents, whose latents are there and whole."""
    whole = set()
    for path in folder.rglob("*.npz"):
        if path.name.endswith(PARTIAL) or not _is_whole(path):
            path.unlink()
        else:
            whole.add(path.name.partition("_")[0])
    return sum(content in contents for content in whole)


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "latents.npy" in archive.namelist() and archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError):
        return False


def keep_latents(strategy_sd: Any, folder: Path, contents: Mapping[str, str]) -> None:
    """Inside the trainer (library.strategy_sd): latents go to `folder`, each one whole.

    contents: path of an image, as the trainer knows it, → sha256; of any other one they stay beside it.
    """
    strategy = strategy_sd.SdSdxlLatentsCachingStrategy
    own, save = strategy.get_latents_npz_path, strategy.save_latents_to_disk
    folder.mkdir(parents=True, exist_ok=True)

    @wraps(own)
    def path_of(self: Any, absolute_path: str, image_size: tuple[int, int]) -> str:
        beside = str(own(self, absolute_path, image_size))
        content = contents.get(absolute_path)
        if content is None or Path(beside).exists():
            return beside
        return str(folder / (content + Path(beside).name.removeprefix(Path(absolute_path).stem)))

    @wraps(save)
    def save_whole(self: Any, npz_path: str, *given: Any, **named: Any) -> None:
        # By the process: two of them may encode one image that lies in the dataset twice.
        partial = f"{npz_path.removesuffix('.npz')}.{os.getpid()}{PARTIAL}"
        save(self, partial, *given, **named)
        Path(partial).replace(npz_path)

    strategy.get_latents_npz_path = path_of
    strategy.save_latents_to_disk = save_whole


def draw_latents_apart(train_util: Any, torch: Any) -> None:
    """Encoding draws from the generator that the training's noise comes from. It is set back, so that a run whose
    latents are found learns with the noise of one that encodes them.

    On a GPU that generator alone: what is made of the CPU's meanwhile is not latents (acceleration/while_caching.py).
    """
    cache = train_util.DatasetGroup.new_cache_latents

    @wraps(cache)
    def cached(group: Any, model: Any, accelerator: Any) -> None:
        device = accelerator.device
        on_gpu = device.type == "cuda"
        before = torch.cuda.get_rng_state(device) if on_gpu else torch.get_rng_state()
        cache(group, model, accelerator)
        if on_gpu:
            torch.cuda.set_rng_state(before, device)
        else:
            torch.set_rng_state(before)

    train_util.DatasetGroup.new_cache_latents = cached
