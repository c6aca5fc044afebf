"""The rule for what a run learns from at a time: images a step and the learning rate, and when a larger batch pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fine_tuning.buckets import Bucket, batches
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
RATES = ("learning_rate", "unet_lr", "text_encoder_lr")
IMAGES_OF_A_STEP = frozenset({"train_batch_size", "gradient_accumulation_steps"})
# Who sets one of them has chosen the batch, or a rate or a count of steps that belongs to the preset's batch.
BELONG_TO_THE_BATCH = frozenset(
    {
        *IMAGES_OF_A_STEP,
        *RATES,
        *("max_train_steps", "lr_warmup_steps", "lr_decay_steps", "lr_scheduler_args", "token_warmup_step"),
        *("save_every_n_steps", "sample_every_n_steps", "validate_every_n_steps"),
    }
)


def learning(
    options: Mapping[str, Any],
    chosen_by_user: frozenset[str],
    buckets: Sequence[Bucket],
    epochs: float,
    gpus: Gpus,
    seconds_per_step: Callable[[Mapping[str, Any]], float],
    scale_batch: bool = True,
    scale_learning_rate: bool = True,
) -> Recipe:
    """Images a step and the learning rate.

    Args:
        options: resolved, with the preset's `train_batch_size` and rates, which belong to each other.
        chosen_by_user: names of the options that the user set; they stay, and so does what hangs on them.
        epochs: how often every image is shown; images seen stay what they are.
        gpus: those of a run, and the least memory of any that it may be given. The trainer gives each a batch of its
            own, so that they share the preset's: what a step shows hangs on no instance.
        seconds_per_step: with given options, on the instance that is tried first; a larger batch must be faster there.
        scale_batch, scale_learning_rate: whether more images may make a step, and whether the rate follows them.

    With a batch k times as large the rate grows by k^0.75: more than √k, which is right where the gradient's noise
    decides (Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms"), because fewer
    steps also go less far; less than k, which is too much where the rate was high already.
    """
    if IMAGES_OF_A_STEP & chosen_by_user:
        return Recipe(())
    before = images_of_a_step(options)
    shared = {**options, **_shared(options, gpus.count)}
    scalable = _is_adam(options) and not BELONG_TO_THE_BATCH & chosen_by_user
    larger = None
    if scalable and scale_batch:
        kept = "gradient_checkpointing" in chosen_by_user and not options.get("gradient_checkpointing")
        again = 0.0 if kept else 1.0
        larger = _larger_batch(shared, before, buckets, epochs, gpus, seconds_per_step, again)
    if larger is None:
        reason = f"{gpus.count} GPUs share a step's {before} images, as far as they can be divided"
    else:
        step = f"a step of {larger * gpus.count} images instead of {before}"
        reason = f"{step} fits {gpus.memory_gib:.0f} GiB and trains more a second"
        shared |= {"train_batch_size": larger, "gradient_accumulation_steps": 1}
    choices = [
        Choice(name, shared[name], reason)
        for name in ("train_batch_size", "gradient_accumulation_steps")
        if shared.get(name, 1) != options.get(name, 1)
    ]
    times = images_of_a_step(shared) * gpus.count / before
    if not scalable or times > MOST_TIMES_THE_BATCH:
        return Recipe(tuple(choices))
    warm_up = int(options.get("lr_warmup_steps") or 0)
    # The schedule moves on once for each GPU in a step (train_util.py, get_scheduler_fix; accelerate's scheduler).
    if warm_up and (same := max(1, round(warm_up / times * gpus.count))) != warm_up:
        choices.append(Choice("lr_warmup_steps", same, "as many images as before"))
    if times != 1 and scale_learning_rate:
        choices += _scaled_rates(options, times)
    return Recipe(tuple(choices))


def images_of_a_step(options: Mapping[str, Any]) -> int:
    """On one GPU."""
    return int(options.get("train_batch_size", 1)) * int(options.get("gradient_accumulation_steps", 1))


def _shared(options: Mapping[str, Any], gpus: int) -> dict[str, int]:
    """What each of several GPUs is given of the preset's images; one at least."""
    if gpus == 1:
        return {}
    return {"train_batch_size": max(1, images_of_a_step(options) // gpus), "gradient_accumulation_steps": 1}


def _larger_batch(
    options: Mapping[str, Any],
    before: int,
    buckets: Sequence[Bucket],
    epochs: float,
    gpus: Gpus,
    seconds_per_step: Callable[[Mapping[str, Any]], float],
    again: float,
) -> int | None:
    """The largest of a GPU that is not too large, None where none pays.

    Args:
        options: with each GPU's share of the `before` images that the preset shows in a step.
    """
    own, accumulation = (int(options.get(n, 1)) for n in ("train_batch_size", "gradient_accumulation_steps"))
    images = sum(bucket.images for bucket in buckets)
    pixels = max((bucket.pixels for bucket in buckets), default=1024 * 1024)

    def seconds(batch: int, together: int = 1) -> float:
        """Of an epoch."""
        changed = {**options, "train_batch_size": batch, "gradient_accumulation_steps": together}
        return batches(buckets, batch) / gpus.count / together * seconds_per_step(changed)

    possible = (
        batch
        for batch in BATCHES
        if max(before, own * accumulation * gpus.count) < batch * gpus.count <= MOST_TIMES_THE_BATCH * before
        and images * epochs >= LEAST_STEPS * batch * gpus.count
        and images >= LEAST_FILLED * batches(buckets, batch) * batch
        and fits(options, batch, pixels, again, gpus.memory_gib)
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
        for name in RATES
        if isinstance(rate := options.get(name), int | float)
    ]
