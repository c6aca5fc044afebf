"""The rule for what a run learns from at a time: images a step and the learning rate, and when a larger batch pays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fine_tuning.recipe import Choice, Gpus, Recipe, fits

BATCHES = (1, 2, 3, 4, 6, 8, 12, 16)
# A preset's batch is raised at most so far, the rate by the growth to this power, and no run to fewer steps: so far
# docs/benchmarks.md saw no worse validation loss, and beyond it did.
MOST_TIMES_THE_BATCH = 2
RATE_GROWS_BY = 0.75
LEAST_STEPS = 200
# A larger batch that saves less than a tenth of the time is not worth another way of learning.
MOST_OF_THE_TIME = 0.9
# Batches of a bucket's rest are smaller; a batch size whose batches are emptier than this gains nothing.
LEAST_FILLED = 0.75
# For these the rule was made and measured; with any other optimizer the batch stays.
ADAMS = ("adamw", "adamw8bit", "pagedadamw", "pagedadamw8bit", "pagedadamw32bit")
# Who sets one of them has chosen the batch, or a rate or a count of steps that belongs to the preset's batch.
BELONG_TO_THE_BATCH = frozenset(
    {
        *("train_batch_size", "gradient_accumulation_steps", "learning_rate", "unet_lr", "text_encoder_lr"),
        *("max_train_steps", "lr_warmup_steps", "lr_decay_steps", "lr_scheduler_args", "token_warmup_step"),
        *("save_every_n_steps", "sample_every_n_steps", "validate_every_n_steps"),
    }
)


@dataclass(frozen=True)
class Filled:
    """An aspect bucket: its pixels, and how many images (repeats counted) it shows in an epoch."""

    pixels: int
    images: int


def learning(
    options: Mapping[str, Any],
    chosen_by_user: frozenset[str],
    buckets: Sequence[Filled],
    epochs: float,
    gpus: Gpus,
    seconds_per_step: Callable[[Mapping[str, Any]], float],
    scale_learning_rate: bool = True,
) -> Recipe:
    """Images a step and the learning rate.

    Args:
        options: resolved, with the preset's `train_batch_size` and rates, which belong to each other.
        chosen_by_user: names of the options that the user set; they stay, and so does what hangs on them.
        epochs: how often every image is shown; images seen stay what they are.
        gpus: the least memory of any GPU that the run may be given. Several multiply the images of a step by
            themselves, so that the batch stays.
        seconds_per_step: with given options, on the instance that is tried first; a larger batch must be faster there.

    With a batch k times as large the rate grows by k^0.75: more than √k, which is right where the gradient's noise
    decides (Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms"), because fewer
    steps also go less far; less than k, which is too much where the rate was high already.
    """
    if BELONG_TO_THE_BATCH & chosen_by_user or not _is_adam(options) or gpus.count > 1:
        return Recipe(())
    kept = "gradient_checkpointing" in chosen_by_user and not options.get("gradient_checkpointing")
    batch = _larger_batch(options, buckets, epochs, gpus.memory_gib, seconds_per_step, 0.0 if kept else 1.0)
    if batch is None:
        return Recipe(())
    accumulation = int(options.get("gradient_accumulation_steps", 1))
    before = int(options.get("train_batch_size", 1)) * accumulation
    reason = f"a step of {batch} images instead of {before} fits {gpus.memory_gib:.0f} GiB and trains more a second"
    choices = [Choice("train_batch_size", batch, reason)]
    if accumulation > 1:
        choices.append(Choice("gradient_accumulation_steps", 1, "they fit at once"))
    if warm_up := int(options.get("lr_warmup_steps") or 0):
        fewer = max(1, round(warm_up * before / batch))
        choices.append(Choice("lr_warmup_steps", fewer, "as many images as before"))
    if scale_learning_rate:
        choices += _scaled_rates(options, batch / before)
    return Recipe(tuple(choices))


def _larger_batch(
    options: Mapping[str, Any],
    buckets: Sequence[Filled],
    epochs: float,
    memory: float,
    seconds_per_step: Callable[[Mapping[str, Any]], float],
    again: float,
) -> int | None:
    """The largest that is not too large, None where none pays."""
    own, accumulation = (int(options.get(n, 1)) for n in ("train_batch_size", "gradient_accumulation_steps"))
    before = own * accumulation
    images = sum(bucket.images for bucket in buckets)
    pixels = max((bucket.pixels for bucket in buckets), default=1024 * 1024)

    def batches(batch: int) -> int:
        return sum(math.ceil(bucket.images / batch) for bucket in buckets)

    def seconds(batch: int, together: int = 1) -> float:
        """Of an epoch."""
        changed = {**options, "train_batch_size": batch, "gradient_accumulation_steps": together}
        return batches(batch) / together * seconds_per_step(changed)

    possible = (
        batch
        for batch in BATCHES
        if before < batch <= MOST_TIMES_THE_BATCH * before
        and images * epochs >= LEAST_STEPS * batch
        and images >= LEAST_FILLED * batches(batch) * batch
        and fits(options, batch, pixels, again, memory)
        and seconds(batch) <= MOST_OF_THE_TIME * seconds(own, accumulation)
    )
    return max(possible, default=None)


def _is_adam(options: Mapping[str, Any]) -> bool:
    return str(options.get("optimizer_type") or "AdamW").lower() in ADAMS and not options.get(
        "use_lion_optimizer"
    )


def _scaled_rates(options: Mapping[str, Any], times: float) -> list[Choice]:
    return [
        Choice(name, float(f"{rate * times**RATE_GROWS_BY:.3g}"), f"{rate:g} × {times:g}^{RATE_GROWS_BY}")
        for name in ("learning_rate", "unet_lr", "text_encoder_lr")
        if isinstance(rate := options.get(name), int | float)
    ]
