"""How many pictures a run draws of its sample prompts, and what they take.

The trainer draws where it is told to (sample_every_n_epochs, which wins, or sample_every_n_steps; sd-scripts,
library/train_util.py, sample_images_common), and this container at the end of every run with prompts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fine_tuning import recipe
from fine_tuning.buckets import Size
from fine_tuning.schedule import Schedule

# Of a prompt without --s (line_to_prompt_dict).
_DENOISING_STEPS = 30
# With the prompt and without it, side by side (--l, the guidance).
_IMAGES_AT_ONCE = 2
# Of a training step that keeps its activations, a forward pass is a third: the backward pass computes two gradients.
_SHARE_OF_FORWARD = 1 / 3
_OPTION = re.compile(r"\s--(?P<name>[whs])\s+(?P<number>\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Drawing:
    """`pictures` in all; `seconds` until the last of them is there, estimated: never timed by itself."""

    pictures: int
    seconds: float


NOTHING = Drawing(0, 0.0)


def drawing(
    prompts: Sequence[str],
    config: Mapping[str, Any],
    length: Schedule,
    resolution: Size,
    gpu: str,
    gpus: int = 1,
) -> Drawing:
    """Of a whole run.

    Args:
        prompts: the manifest's, with the trainer's options in them.
        config: resolved options.
        resolution: (width, height) of a prompt that names none.
        gpu: a class of speed.json; `gpus` of them share the prompts.
    """
    if not prompts:
        return NOTHING
    times = _times(config, length)
    seconds = [_seconds(prompt, resolution, gpu) for prompt in prompts]
    # Each of the GPUs takes every n-th prompt.
    longest = max(sum(seconds[first::gpus]) for first in range(gpus))
    return Drawing(times * len(prompts), times * longest)


def _times(config: Mapping[str, Any], length: Schedule) -> int:
    """How often all prompts are drawn; those of the last step are drawn once."""
    at_first = int(bool(config.get("sample_at_first")))
    if epochs := int(config.get("sample_every_n_epochs") or 0):
        return at_first + math.ceil(length.epochs / epochs)
    if steps := int(config.get("sample_every_n_steps") or 0):
        return at_first + math.ceil(length.total_steps / steps)
    return at_first + 1


def _seconds(prompt: str, resolution: Size, gpu: str) -> float:
    told = {match["name"].lower(): int(match["number"]) for match in _OPTION.finditer(prompt)}
    pixels = told.get("w", resolution[0]) * told.get("h", resolution[1])
    step = recipe.seconds_per_step(_IMAGES_AT_ONCE, pixels, 0.0, gpu, "plain")
    return told.get("s", _DENOISING_STEPS) * _SHARE_OF_FORWARD * step
