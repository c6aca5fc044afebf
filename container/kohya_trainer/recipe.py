"""From wishes, dataset and machine to the fastest settings that keep what the user means; each with its reason.

Two questions, asked at two times. `learning` decides what changes the result: images a step and the learning rate.
It is asked before the run, for the GPU with the least memory of those the run may be given, so that whichever it is
given goes on from the same checkpoints and the quote holds. `execution` decides how a step is carried out on the
machine found, and changes nothing that is learned; it is asked in the container. What the user set always wins.

container/kohya_trainer owns this file and speed.json; functions/fine_tuning holds copies, byte for byte.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

_FIGURES = Path(__file__).with_name("speed.json")
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
# Of the memory left beside the CUDA context; the allocator cannot hand out the last of it in one piece.
USABLE_SHARE = 0.94
SHARES_COMPUTED_AGAIN = (0.0, 0.25, 0.5, 0.75, 1.0)
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
FORBID_CACHED_LATENTS = ("color_aug", "random_crop")
FORBID_CACHED_TEXT = (
    "shuffle_caption",
    "caption_dropout_rate",
    "caption_dropout_every_n_epochs",
    "caption_tag_dropout_rate",
    "token_warmup_step",
    "weighted_captions",
)


@dataclass(frozen=True)
class Gpus:
    """Those that train together, over all hosts; `memory_gib` is one GPU's, as its driver tells it."""

    count: int
    memory_gib: float
    hosts: int = 1


@dataclass(frozen=True)
class Filled:
    """An aspect bucket: its pixels, and how many images (repeats counted) it shows in an epoch."""

    pixels: int
    images: int


@dataclass(frozen=True)
class Choice:
    """One setting: an option of the trainer, or of its execution where the trainer has none."""

    option: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Recipe:
    choices: tuple[Choice, ...]

    @property
    def settings(self) -> dict[str, Any]:
        return {choice.option: choice.value for choice in self.choices}

    def lines(self) -> list[str]:
        """For the log, one a choice."""
        return [f"{choice.option} = {choice.value}: {choice.reason}" for choice in self.choices]


def learning(
    options: Mapping[str, Any],
    chosen_by_user: frozenset[str],
    buckets: Sequence[Filled],
    epochs: float,
    gpus: Gpus,
    kind: str,
    scale_learning_rate: bool = True,
) -> Recipe:
    """Images a step and the learning rate.

    Args:
        options: resolved, with the preset's `train_batch_size` and rates, which belong to each other.
        chosen_by_user: names of the options that the user set; they stay, and so does what hangs on them.
        epochs: how often every image is shown; images seen stay what they are.
        gpus: the least memory of any GPU that the run may be given. Several multiply the images of a step by
            themselves, so that the batch stays.
        kind: the class of speed.json of the GPU that is tried first; a larger batch must be faster there.

    With a batch k times as large the rate grows by k^0.75: more than √k, which is right where the gradient's noise
    decides (Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms"), because fewer
    steps also go less far; less than k, which is too much where the rate was high already.
    """
    if BELONG_TO_THE_BATCH & chosen_by_user or not _is_adam(options) or gpus.count > 1:
        return Recipe(())
    kept = "gradient_checkpointing" in chosen_by_user and not options.get("gradient_checkpointing")
    batch = _larger_batch(options, buckets, epochs, gpus.memory_gib, kind, 0.0 if kept else 1.0)
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
    kind: str,
    again: float,
) -> int | None:
    """The largest that is not too large, None where none pays."""
    own, accumulation = (int(options.get(n, 1)) for n in ("train_batch_size", "gradient_accumulation_steps"))
    before = own * accumulation
    images = sum(bucket.images for bucket in buckets)
    pixels = max((bucket.pixels for bucket in buckets), default=1024 * 1024)

    def batches(batch: int) -> int:
        return sum(math.ceil(bucket.images / batch) for bucket in buckets)

    def seconds(batch: int) -> float:
        return batches(batch) * seconds_per_step(batch, pixels, again, kind, "plain")

    possible = (
        batch
        for batch in BATCHES
        if before < batch <= MOST_TIMES_THE_BATCH * before
        and images * epochs >= LEAST_STEPS * batch
        and images >= LEAST_FILLED * batches(batch) * batch
        and fits(options, batch, pixels, again, memory)
        and seconds(batch) <= MOST_OF_THE_TIME * seconds(own)
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


def execution(
    options: Mapping[str, Any],
    chosen_by_user: frozenset[str],
    pixels: int,
    gpus: Gpus,
    cpus: int,
    accelerated: bool = True,
    images: int = 0,
) -> Recipe:
    """How a step is carried out on this machine.

    Args:
        pixels: of the largest bucket.
        cpus: of the host, which its GPUs share.
        images: files whose latents are cached.
        accelerated: whether the trainer's U-Net will be the fast one (kohya_trainer.acceleration).
    """
    batch = int(options.get("train_batch_size", 1))
    whole = computed_again(options, batch, pixels, gpus.memory_gib, "plain") > 0
    choices = [
        Choice("gradient_checkpointing", whole, _needed(options, batch, pixels, float(whole), gpus, "plain"))
    ]
    if accelerated:
        share = computed_again(options, batch, pixels, gpus.memory_gib)
        if "gradient_checkpointing" in chosen_by_user:
            share = 1.0 if options.get("gradient_checkpointing") else 0.0
        # Not the trainer's: its own U-Net, which the fast one replaces, knows all or nothing.
        choices.append(Choice("computed_again", share, _needed(options, batch, pixels, share, gpus, "fast")))
    choices += _caching(options, gpus, images)
    if not any(options.get(name) for name in ("sdpa", "xformers", "mem_eff_attn")):
        choices.append(Choice("sdpa", True, "attention in one kernel"))
    if options.get("optimizer_type", "AdamW") == "AdamW" and not options.get("optimizer_args"):
        choices.append(Choice("optimizer_args", ["fused=True"], "one kernel for all parameters"))
    if gpus.memory_gib >= LEAST_FOR_STRAIGHT_LOADING:
        choices.append(
            Choice("lowram", True, "the checkpoint goes straight to the GPU, which has room for it")
        )
    if gpus.memory_gib >= LEAST_FOR_SEVERAL_LATENTS:
        choices.append(Choice("vae_batch_size", 4, "latents are cached four at a time"))
        choices.append(Choice("highvram", True, "memory is not given back after each of them"))
    here = max(1, gpus.count // gpus.hosts)
    workers = max(1, min(8, cpus // here // 2))
    choices.append(Choice("max_data_loader_n_workers", workers, f"{cpus} CPUs for {here} GPUs"))
    choices.append(Choice("persistent_data_loader_workers", True, "no new processes at each epoch"))
    return Recipe(tuple(choice for choice in choices if choice.option not in chosen_by_user))


def _needed(
    options: Mapping[str, Any], batch: int, pixels: int, again: float, gpus: Gpus, execution: str
) -> str:
    needed = memory_gib(options, batch, pixels, again, execution)
    return f"so batch {batch} takes {needed:.0f} of {gpus.memory_gib:.0f} GiB in the {execution} U-Net"


# U-Net, both text encoders and the VAE in half precision take 6.9 GB; the caching passes a few more.
LEAST_FOR_STRAIGHT_LOADING = 15.0
# The VAE in fp32 takes 3 GiB for one image of 1024 x 1024, and 12.6 for four.
LEAST_FOR_SEVERAL_LATENTS = 30.0
# Fewer are encoded again in ten seconds.
LEAST_IMAGES_TO_KEEP = 100


def _caching(options: Mapping[str, Any], gpus: Gpus, images: int) -> list[Choice]:
    choices = []
    cacheable = not any(options.get(name) for name in FORBID_CACHED_LATENTS)
    if cacheable and not options.get("cache_latents"):
        choices.append(Choice("cache_latents", True, "no option changes the pictures between epochs"))
    # Each host has a disk of its own, and the trainer looks for every picture's latents on each.
    if cacheable and gpus.hosts == 1 and images >= LEAST_IMAGES_TO_KEEP:
        reason = f"a restart finds the latents of {images} images, and several GPUs share the work"
        choices.append(Choice("cache_latents_to_disk", True, reason))
    changing = not options.get("network_train_unet_only") or any(
        options.get(name) for name in FORBID_CACHED_TEXT
    )
    if not changing and not options.get("cache_text_encoder_outputs"):
        reason = "captions and their encoders stay as they are"
        choices.append(Choice("cache_text_encoder_outputs", True, reason))
    return choices


def memory_gib(
    options: Mapping[str, Any], batch: int, pixels: int, again: float, execution: str = "fast"
) -> float:
    """The peak of torch's allocations on one GPU.

    Args:
        pixels: of one image; activations grow with it.
        again: share of the blocks whose insides are computed a second time instead of kept.
        execution: "plain", the trainer's own U-Net, or "fast".
    """
    figures = _figures()["memory"]
    optimizer = str(options.get("optimizer_type") or "AdamW")
    per_parameter = figures["bytes_per_parameter"].get(optimizer, 16)
    rank = int(options.get("network_dim") or 4)
    parameters = rank * figures["network_parameters_per_rank"]
    fixed = figures["unet_gib"]
    images = figures["activations_gib_per_image"][execution]
    activations = again * images["again"] + (1 - again) * images["kept"]
    if not options.get("network_train_unet_only"):
        parameters += rank * figures["text_encoder_parameters_per_rank"]
        activations += 0.25 if again else 0.8
    if not options.get("cache_text_encoder_outputs"):
        fixed += figures["text_encoders_gib"]
    area = pixels / (1024 * 1024)
    return float(fixed + parameters * per_parameter / 2**30 + batch * area * activations)


def fits(
    options: Mapping[str, Any], batch: int, pixels: int, again: float, memory: float, execution: str = "plain"
) -> bool:
    """Whether it fits a GPU of `memory` GiB."""
    usable: float = (memory - _figures()["memory"]["context_gib"]) * USABLE_SHARE
    return memory_gib(options, batch, pixels, again, execution) <= usable


def computed_again(
    options: Mapping[str, Any], batch: int, pixels: int, memory: float, execution: str = "fast"
) -> float:
    """The smallest share that fits; all of it where even that does not. The trainer's own U-Net knows 0 and 1 only."""
    shares = SHARES_COMPUTED_AGAIN if execution == "fast" else (0.0, 1.0)
    return next((s for s in shares if fits(options, batch, pixels, s, memory, execution)), 1.0)


def seconds_per_step(batch: int, pixels: int, again: float, gpu: str, execution: str = "fast") -> float:
    """Of one GPU's batch, U-Net alone learning; `gpu` is a class of speed.json, H200 measured and the others scaled."""
    figures = _figures()
    table = figures["seconds_per_step"][execution]
    images = batch * pixels / (1024 * 1024)
    kept, recomputed = (_interpolated(table[name]["by_batch"], images) for name in ("kept", "again"))
    here = kept + again * (recomputed - kept)
    found, measured = figures["gpus"][gpu], figures["gpus"]["H200"]
    share = figures["share_of_arithmetic"]
    slower = share * measured["bf16_tflops"] / found["bf16_tflops"]
    slower += (1 - share) * measured["gb_per_second"] / found["gb_per_second"]
    largest = [points["by_batch"][-1] for points in (table["kept"], table["again"])]
    an_image = sum(part * last[1] / last[0] for part, last in zip((1 - again, again), largest, strict=True))
    # Small batches wait for kernels to be launched, which no GPU makes faster; an image's own work is scaled.
    return float(max(here, an_image * images * slower))


def _interpolated(points: Sequence[Sequence[float]], batch: float) -> float:
    """Straight lines between measured (batch, seconds) points; below the first it stays, and the last goes on."""
    if batch <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in pairwise(points):
        if batch <= right or right == points[-1][0]:
            return low + (high - low) * (batch - left) / (right - left)
    raise AssertionError("unreachable: the last line goes on")


@cache
def _figures() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(_FIGURES.read_text(encoding="utf-8"))
    return figures
