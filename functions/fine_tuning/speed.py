"""What a step takes on an instance: with the trainer's own U-Net, and with the fast one where that is expected.

recipe.py has the model and speed.json its figures; a quote and the choice of a larger batch both ask here, so that what
is chosen for its time is quoted with that time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fine_tuning import instances, recipe
from fine_tuning.buckets import Size
from fine_tuning.instances import Instance

# Where the whole trainer was timed with the fast U-Net (`whole_trainer_measured` in speed.json, batch 16), it is
# expected, without CUDA graphs: the image's torch is older than those with which they are recorded. What must hold
# (budget, time limits) rests on the trainer's own, which trains where the fast one is refused.
FAST_GPUS = ("H100", "H200")
FAST_VERSION = "v25.2.2"
_FAST_PRECISIONS = ("bf16", "fp16")
_REFUSED_BY_FAST = (
    *("xformers", "mem_eff_attn", "fp8_base", "fp8_base_unet"),
    *("network_args", "network_dropout", "dim_from_weights"),
)
_SLOWEST_GPU = "A10G"
# Of the whole trainer with its own U-Net; that U-Net alone was timed on an H200.
MEASURED_GPU = "H100"
_MEASURED_PIXELS = 1024 * 1024
# Option: the trainer's default, and what the measured recipe had.
_MEASURED_WITH = {
    "network_module": ("networks.lora", "networks.lora"),
    "network_dim": (4, 32),
    "optimizer_type": ("AdamW", "AdamW"),
    "use_8bit_adam": (False, False),
    "use_lion_optimizer": (False, False),
    "mixed_precision": ("no", "bf16"),
}


@dataclass(frozen=True)
class StepTime:
    """Seconds of an optimizer step.

    Attributes:
        own: with the trainer's own U-Net.
        expected: with the one that is expected; `execution` names it as recipe.py does, "plain" or "fast".
        scaled_by: the rules by which `own` was made from what was measured; none where it was measured itself.
    """

    own: float
    expected: float
    execution: str
    scaled_by: tuple[str, ...] = ()


def step_time(
    config: Mapping[str, Any],
    resolution: Size,
    instance: Instance | None,
    by_user: frozenset[str] = frozenset(),
    kohya_version: str | None = None,
) -> StepTime:
    """The time of a step with a batch on each GPU.

    Args:
        config: resolved options; batch size, what is trained and checkpointing decide about the speed.
        resolution: (width, height) that buckets are made for; work grows with its area.
        instance: None where it is not in the table; the slowest GPU there is taken.
        by_user: options that the user set.
        kohya_version: the image's; None expects the trainer's own U-Net.
    """
    gpu = gpu_of(instance)
    pixels = resolution[0] * resolution[1]
    memory = instances.memory_of(gpu)
    whole = _computed_again(config, by_user, pixels, memory, "plain")
    own = _seconds(config, pixels, gpu, whole, "plain")
    rules = tuple(_scaled_by(config, pixels, gpu, whole))
    if instance is None or kohya_version != FAST_VERSION or not _may_be_fast(config, gpu):
        return StepTime(own, own, "plain", rules)
    again = _computed_again(config, by_user, pixels, memory, "fast")
    return StepTime(own, min(own, _seconds(config, pixels, gpu, again, "fast")), "fast", rules)


def gpu_of(instance: Instance | None) -> str:
    """The class of speed.json."""
    return instance.gpu if instance else _SLOWEST_GPU


def _may_be_fast(config: Mapping[str, Any], gpu: str) -> bool:
    """Whether kohya_trainer.acceleration takes such a recipe, and was timed on such a GPU."""
    return (
        gpu in FAST_GPUS
        and bool(config.get("network_train_unet_only"))
        and config.get("network_module", "networks.lora") == "networks.lora"
        and config.get("mixed_precision") in _FAST_PRECISIONS
        and not any(config.get(name) for name in _REFUSED_BY_FAST)
    )


def _computed_again(
    config: Mapping[str, Any], by_user: frozenset[str], pixels: int, memory_gib: float, execution: str
) -> float:
    """As the container chooses it (kohya_trainer/execution.py)."""
    if "gradient_checkpointing" in by_user:
        return 1.0 if config.get("gradient_checkpointing") else 0.0
    return recipe.computed_again(
        config, int(config.get("train_batch_size", 1)), pixels, memory_gib, execution
    )


def _scaled_by(config: Mapping[str, Any], pixels: int, gpu: str, again: float) -> Iterator[str]:
    """How far the recipe is from those of speed.json with which the whole trainer was timed."""
    batch = int(config.get("train_batch_size", 1))
    timed = recipe.measured_batches(again, gpu)
    if gpu != MEASURED_GPU:
        yield "the trainer's own time as there"
    if gpu not in FAST_GPUS:
        yield "an image's work with arithmetic (55 %) and memory bandwidth (45 %)"
    if pixels != _MEASURED_PIXELS:
        yield "work with the image's area"
    elif timed and not timed[0] <= batch <= timed[1]:
        yield f"batch {batch} from others"
    if (together := int(config.get("gradient_accumulation_steps", 1))) > 1:
        yield f"times {together} batches of a step"
    if not config.get("network_train_unet_only"):
        yield f"times {instances.figures()['factor_text_encoders']} with text encoders"
    if any(config.get(name, default) != value for name, (default, value) in _MEASURED_WITH.items()):
        yield "as rank 32 with AdamW and bf16 takes it"


def _seconds(config: Mapping[str, Any], pixels: int, gpu: str, again: float, execution: str) -> float:
    batch = int(config.get("train_batch_size", 1))
    seconds = recipe.seconds_of_whole_trainer(batch, pixels, again, gpu, execution)
    seconds *= int(config.get("gradient_accumulation_steps", 1))
    if not config.get("network_train_unet_only"):
        seconds *= instances.figures()["factor_text_encoders"]
    return seconds
