"""Sample prompts: what the trainer is given to draw, and what the pictures say of themselves."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kohya_trainer.png_text import with_text
from kohya_trainer.recipe import memory_gib, usable_gib

# <output_name>_<step, or e and the epoch>_<index of the prompt>_<time>[_<seed>].png, library/train_util.py
_NAME = re.compile(r"_(?P<epoch>e?)(?P<number>\d{6})_(?P<index>\d{2,})_\d{14}(?:_(?P<seed>\d+))?\.png$")
# As library/train_util.py reads them, line_to_prompt_dict: without regard to case, and at the prompt's own begin, too.
_HAS_SEED = re.compile(r"\s--d \d+", re.IGNORECASE)
_CONTROL_PICTURE = re.compile(r"\s--cn (?:(?! --).)*", re.IGNORECASE)
_BEGINS_AS_OPTION = re.compile(r"(?:[whdslg] [\d.]|(?:n|ss|cn) .)", re.IGNORECASE)


# What decoding a picture of 1024 × 1024 takes where the VAE is in fp32 (no_half_vae): some tensors of 256 channels, of
# 1 GiB each, and the convolutions' room to work in. Estimated.
_DECODING_GIB = 9.0


def picture_size(options: Mapping[str, Any], memory: float | None) -> tuple[int, int] | None:
    """Width and height for prompts that name none: those that are trained with, because SDXL draws badly at the
    trainer's own 512 × 512. None where a GPU of `memory` GiB has no room to decode such a picture.
    """
    sides = [int(side) for side in str(options.get("resolution") or 1024).split(",")]
    pixels = sides[0] * sides[-1]
    # While it draws, both text encoders and no activations of the training are there.
    drawing = {**options, "cache_text_encoder_outputs": False}
    decoding = _DECODING_GIB * pixels / 1024**2
    if memory is not None and memory_gib(drawing, 0, pixels, 1.0) + decoding > usable_gib(memory):
        return None
    return max(64, sides[0] // 32 * 32), max(64, sides[-1] // 32 * 32)  # the U-Net halves its latents twice


def prompt_lines(prompts: Sequence[str], seed: int, size: tuple[int, int] | None = None) -> list[str]:
    """One prompt a line, as Kohya reads them: # begins a comment. Each gets a seed, so that pictures of different
    steps can be compared. None gets a picture to be guided by, which the trainer would look for on this machine and
    stop without; "CN Tower" at a prompt's begin names none, and a comma before it tells so.

    size: width and height where a prompt names none.
    """
    lines = [_CONTROL_PICTURE.sub("", " ".join(prompt.split()).lstrip("# ")) for prompt in prompts]
    lines = [f", {line}" if _BEGINS_AS_OPTION.match(line) else line for line in lines]
    for option, side in zip(("w", "h"), size or (), strict=False):
        named = re.compile(rf"\s--{option} \d+", re.IGNORECASE)
        lines = [line if named.search(line) else f"{line} --{option} {side}" for line in lines]
    return [
        line if _HAS_SEED.search(line) else f"{line} --d {seed + index}" for index, line in enumerate(lines)
    ]


def deliver_samples(drawn: Path, target: Path, prompts: Sequence[str], private: bool) -> int:
    """Copies the pictures with prompt, seed and step inside; a private run's without the prompt."""
    pictures = sorted(drawn.glob("*.png"))
    if pictures:
        target.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        texts = _texts(picture.name, prompts)
        if private:
            texts.pop("prompt", None)
        (target / picture.name).write_bytes(with_text(picture.read_bytes(), texts))
    return len(pictures)


def step_of(name: str) -> int | None:
    """After which a picture was drawn; None where its name tells an epoch."""
    match = _NAME.search(name)
    return None if match is None or match["epoch"] else int(match["number"])


def _texts(name: str, prompts: Sequence[str]) -> dict[str, str]:
    match = _NAME.search(name)
    if match is None:
        return {}
    texts = {"epoch" if match["epoch"] else "step": str(int(match["number"]))}
    if match["seed"]:
        texts["seed"] = match["seed"]
    if int(match["index"]) < len(prompts):
        texts["prompt"] = prompts[int(match["index"])]
    return texts
