"""What a run will take, in seconds and US dollars, before anything is paid for.

prices.json holds the dated figures and says of each where it comes from and whether it was measured. Speed on
another GPU than the measured one is scaled, and the quote says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from fine_tuning.buckets import Size

_PRICES_FILE = Path(__file__).with_name("prices.json")
_RUNTIME_MARGIN = 2
_RUNTIME_ALLOWANCE_SECONDS = 30 * 60


@dataclass(frozen=True)
class Quote:
    """An estimate, not a promise.

    Attributes:
        seconds: billable, with start-up.
        cost_usd: at the on-demand price, also for spot, which costs less; None where no price is known.
        basis: how the figures came about, one sentence.
    """

    instance_type: str
    seconds: int
    seconds_per_step: float
    cost_usd: float | None
    usd_per_hour: float | None
    price_date: str
    price_verified: bool
    basis: str

    def as_document(self) -> dict[str, Any]:
        return asdict(self)


def quote(instance_type: str, steps: int, images: int, resolution: Size, config: Mapping[str, Any]) -> Quote:
    """The quote of a training job.

    Args:
        steps: each is a batch on every GPU at the same time, so more GPUs make fewer steps, not faster ones.
        images: files whose latents are cached before the first step.
        resolution: (width, height) that buckets are made for; work grows with its area.
        config: resolved options; batch size, what is trained and checkpointing decide about the speed.
    """
    figures = _figures()
    measured_on = figures["measured_on"]
    instance = figures["instances"].get(instance_type)
    tflops = (
        instance["bf16_tflops"] if instance else min(i["bf16_tflops"] for i in figures["instances"].values())
    )
    slower = measured_on["bf16_tflops"] / tflops
    area = resolution[0] * resolution[1] / (1024 * 1024)
    per_step = _seconds_per_step(config, slower, area, figures)
    caching = images * figures["caching_seconds_per_image"] * slower * area
    seconds = round(figures["start_up_seconds"] + caching + steps * per_step)
    price = instance["usd_per_hour"] if instance else None
    return Quote(
        instance_type=instance_type,
        seconds=seconds,
        seconds_per_step=round(per_step, 3),
        cost_usd=None if price is None else round(seconds / 3600 * price, 2),
        usd_per_hour=price,
        price_date=figures["date"],
        price_verified=bool(instance and instance["verified"]),
        basis=f"scaled from {measured_on['gpu']} by {slower:.1f} (bf16 speed); indicative us-east-1 prices",
    )


def max_runtime_seconds(quoted: Quote, limit: int, budget_usd: float | None) -> int:
    """When SageMaker ends the job: twice the quote and half an hour.

    At most what the stack allows, and what the budget pays for at the on-demand price.
    """
    seconds = min(limit, _RUNTIME_MARGIN * quoted.seconds + _RUNTIME_ALLOWANCE_SECONDS)
    if budget_usd is None or not quoted.usd_per_hour:
        return seconds
    return min(seconds, math.floor(budget_usd / quoted.usd_per_hour * 3600))


@cache
def _figures() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(_PRICES_FILE.read_bytes())
    return figures


def _seconds_per_step(
    config: Mapping[str, Any], slower: float, area: float, figures: Mapping[str, Any]
) -> float:
    """Small batches are bound by launching kernels, which no GPU makes faster.

    Large ones by arithmetic, which scales.
    """
    speed = figures["seconds_per_step"]
    batch = config.get("train_batch_size", 1)
    launching = _interpolated(speed["unet_only_by_batch"], batch * area)
    arithmetic = speed["arithmetic_per_image"] * batch * area * slower
    factor = float(config.get("gradient_accumulation_steps", 1))
    if not config.get("network_train_unet_only"):
        factor *= speed["factor_text_encoders"]
    if config.get("gradient_checkpointing"):
        factor *= speed["factor_gradient_checkpointing"]
    return max(launching, float(arithmetic)) * factor


def _interpolated(points: list[list[float]], batch: float) -> float:
    """Straight lines between measured (batch, seconds) points; the last line goes on."""
    if batch <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in pairwise(points):
        if batch <= right or right == points[-1][0]:
            return low + (high - low) * (batch - left) / (right - left)
    raise AssertionError("unreachable: the last line goes on")


def gpus(instance_type: str) -> int:
    """GPUs of an instance, each with a training process of its own; 1 where it is not known."""
    instance = _figures()["instances"].get(instance_type)
    return 1 if instance is None else instance["gpus"]


def price_per_hour(instance_type: str) -> float | None:
    """On-demand US dollars, None where no price is known."""
    instance = _figures()["instances"].get(instance_type)
    return None if instance is None else instance["usd_per_hour"]
