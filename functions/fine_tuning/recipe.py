"""What a recipe is, and what a step of it takes: memory and seconds.

Two questions, asked at two times. What changes the result, images a step and the learning rate, is decided before the
run (functions/fine_tuning/learning.py), for the GPU with the least memory of those the run may be given, so that
whichever it is given goes on from the same checkpoints and the quote holds. How a step is carried out changes nothing
that is learned and is decided in the container, on the machine found (container/kohya_trainer/execution.py). What the
user set always wins.

container/kohya_trainer owns this file and speed.json; functions/fine_tuning holds copies, byte for byte.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

_FIGURES = Path(__file__).with_name("speed.json")
# Of the memory left beside the CUDA context; the allocator cannot hand out the last of it in one piece.
USABLE_SHARE = 0.94
SHARES_COMPUTED_AGAIN = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Gpus:
    """Those that train together, over all hosts; `memory_gib` is one GPU's, as its driver tells it."""

    count: int
    memory_gib: float
    hosts: int = 1


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


def memory_gib(
    options: Mapping[str, Any], batch: int, pixels: int, again: float, execution: str = "fast"
) -> float:
    """The peak of torch's allocations on one GPU.

    Without mixed_precision, the trainer's default, weights and activations are in fp32 and take twice the room: what
    the fast U-Net keeps was measured as 1.998 times that of bf16. What the LoRA and its optimizer take is the same.

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
    width = 2 if (options.get("mixed_precision") or "no") == "no" else 1
    return float(width * (fixed + batch * area * activations) + parameters * per_parameter / 2**30)


def fits(
    options: Mapping[str, Any], batch: int, pixels: int, again: float, memory: float, execution: str = "plain"
) -> bool:
    """Whether it fits a GPU of `memory` GiB."""
    return memory_gib(options, batch, pixels, again, execution) <= usable_gib(memory)


def usable_gib(memory: float) -> float:
    """Of a GPU of `memory` GiB, what torch may allocate."""
    return float((memory - _figures()["memory"]["context_gib"]) * USABLE_SHARE)


def computed_again(
    options: Mapping[str, Any], batch: int, pixels: int, memory: float, execution: str = "fast"
) -> float:
    """The smallest share that fits; all of it where even that does not. The trainer's own U-Net knows 0 and 1 only."""
    shares = SHARES_COMPUTED_AGAIN if execution == "fast" else (0.0, 1.0)
    return next((s for s in shares if fits(options, batch, pixels, s, memory, execution)), 1.0)


def seconds_per_step(batch: int, pixels: int, again: float, gpu: str, execution: str = "fast") -> float:
    """Of one GPU's batch, U-Net alone learning; `gpu` is a class of speed.json, H200 measured and the others scaled."""
    table = _figures()["seconds_per_step"][execution]
    images = batch * pixels / (1024 * 1024)
    kept, recomputed = (_interpolated(table[name]["by_batch"], images) for name in ("kept", "again"))
    # Small batches wait for kernels to be launched, which no GPU makes faster; an image's own work is scaled.
    return float(max(kept + again * (recomputed - kept), _seconds_of_work(images, again, gpu, execution)))


def seconds_of_whole_trainer(batch: int, pixels: int, again: float, gpu: str, execution: str) -> float:
    """As `seconds_per_step`, with the trainer around it, where torch records no CUDA graphs.

    What the GPU waits for in between, launches and the trainer's own work, is the same for every batch.
    """
    figures = _figures()["whole_trainer_plain" if execution == "plain" else "whole_trainer_without_graphs"]
    alone = seconds_per_step(batch, pixels, again, gpu, execution)
    work = _seconds_of_work(batch * pixels / (1024 * 1024), again, gpu, execution)
    return float(max(alone, figures.get("launching_seconds", 0.0), work + figures["waiting_seconds"]))


def measured_batches(again: float, gpu: str) -> tuple[int, int] | None:
    """The smallest and the largest batch of a megapixel that the whole trainer was timed with, its own U-Net in it."""
    rows = _figures()["whole_trainer_plain"]["measured"]
    batches = [int(row["batch"]) for row in rows if (row["again"], row["gpu"]) == (again, gpu)]
    return (min(batches), max(batches)) if batches else None


def _seconds_of_work(images: float, again: float, gpu: str, execution: str) -> float:
    """Of the GPU alone, for that many megapixels."""
    figures = _figures()
    table = figures["seconds_per_step"][execution]
    found, measured = figures["gpus"][gpu], figures["gpus"]["H200"]
    share = figures["share_of_arithmetic"]
    slower = share * measured["bf16_tflops"] / found["bf16_tflops"]
    slower += (1 - share) * measured["gb_per_second"] / found["gb_per_second"]
    largest = [points["by_batch"][-1] for points in (table["kept"], table["again"])]
    an_image = sum(part * last[1] / last[0] for part, last in zip((1 - again, again), largest, strict=True))
    return float(an_image * images * slower)


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
