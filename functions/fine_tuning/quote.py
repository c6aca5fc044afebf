"""What a run will take, in seconds and US dollars, before anything is paid for.

A quote says what it assumes: where the speed comes from (measured, scaled from another GPU, corrected by this
account's own runs), where the price comes from, and how far it may be off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fine_tuning import instances, recipe
from fine_tuning.buckets import Size
from fine_tuning.drawing import NOTHING, Drawing
from fine_tuning.instances import Prices
from fine_tuning.own_runs import Correction
from fine_tuning.speed import MEASURED_GPU, StepTime, gpu_of, step_time

_RUNTIME_MARGIN = 2
_RUNTIME_ALLOWANCE_SECONDS = 30 * 60


@dataclass(frozen=True)
class _Timed:
    """Seconds with one of both U-Nets, as this account's own runs corrected its table."""

    steps: int
    fixed: float
    drawing: float
    per_step: float
    low: float
    high: float
    correction: Correction | None

    @property
    def seconds(self) -> float:
        return self.fixed + self.drawing + self.steps * self.per_step


@dataclass(frozen=True)
class Quote:
    """An estimate, not a promise.

    Attributes:
        seconds: billable, with start-up; between `least_seconds` and `most_seconds`.
        execution: the U-Net that is expected, "plain" or "fast".
        table_seconds: before this account's own runs corrected it.
        own_seconds, own_seconds_per_step: with the trainer's own U-Net, and no less than what is expected.
        fixed_seconds: those of `own_seconds` before the first step.
        drawing_seconds: those of `own_seconds` for sample pictures.
        cost_usd: at the on-demand price; None where no price is known.
        spot_cost_usd: the same time on spot capacity, without interruptions.
        assumed: what the figures rest on, a sentence each.
    """

    instance_type: str
    execution: str
    seconds: int
    least_seconds: int
    most_seconds: int
    table_seconds: int
    fixed_seconds: int
    drawing_seconds: int
    own_seconds: int
    seconds_per_step: float
    own_seconds_per_step: float
    cost_usd: float | None
    spot_cost_usd: float | None
    usd_per_hour: float | None
    assumed: tuple[str, ...]

    def as_document(self) -> dict[str, Any]:
        return {**asdict(self), "assumed": list(self.assumed)}

    def cost_of(self, seconds: float) -> float | None:
        return None if self.usd_per_hour is None else round(seconds / 3600 * self.usd_per_hour, 2)

    @property
    def most_usd(self) -> float | None:
        """What a budget is held against."""
        return self.cost_of(self.own_seconds)

    def steps_for(self, budget_usd: float) -> int:
        """The steps that a budget pays for, whichever U-Net trains."""
        if not self.usd_per_hour:
            return 0
        beside = self.fixed_seconds + self.drawing_seconds
        return max(
            0, math.floor((budget_usd / self.usd_per_hour * 3600 - beside) / self.own_seconds_per_step)
        )


def quote(
    instance_type: str,
    steps: int,
    images: int,
    resolution: Size,
    config: Mapping[str, Any],
    prices: Prices | None = None,
    corrections: Mapping[tuple[str, str], Correction] | None = None,
    by_user: frozenset[str] = frozenset(),
    kohya_version: str | None = None,
    drawn: Drawing = NOTHING,
) -> Quote:
    """The quote of a training job.

    Args:
        steps: each is a batch on every GPU at the same time, so more GPUs make fewer steps, not faster ones.
        images: files whose latents are cached before the first step.
        resolution: (width, height) that buckets are made for; work grows with its area.
        config: resolved options; batch size, what is trained and checkpointing decide about the speed.
        by_user: those that the user set.
        kohya_version: the image's; None quotes the trainer's own U-Net.
        drawn: pictures of sample prompts.
    """
    prices = prices or Prices()
    figures = instances.figures()
    instance = instances.find(instance_type)
    gpu = gpu_of(instance)
    pixels = resolution[0] * resolution[1]
    caching = images * figures["caching_seconds_per_image"] * _slower(gpu) * pixels / 2**20
    step = step_time(config, resolution, instance, by_user, kohya_version)
    fixed = figures["start_up_seconds"] + caching

    def timed(per_step: float, execution: str) -> _Timed:
        found = (corrections or {}).get((gpu, execution)) if instance else None
        ratio = found.ratio if found else 1.0
        basis = "scaled" if step.scaled_by or execution == "fast" else "measured"
        low, high = (found.low, found.high) if found else figures["uncertainty"][basis]
        return _Timed(steps, fixed * ratio, drawn.seconds * ratio, per_step * ratio, low, high, found)

    expected, plain = timed(step.expected, step.execution), timed(step.own, "plain")
    own = max(expected, plain, key=lambda one: one.seconds)
    seconds = expected.seconds
    price, spot_price = prices.on_demand(instance_type), prices.spot(instance_type)
    return Quote(
        instance_type=instance_type,
        execution=step.execution,
        seconds=round(seconds),
        least_seconds=round(seconds * expected.low),
        most_seconds=round(max(one.seconds * one.high for one in (expected, own))),
        table_seconds=round(fixed + drawn.seconds + steps * step.expected),
        fixed_seconds=round(own.fixed),
        drawing_seconds=round(own.drawing),
        own_seconds=round(own.seconds),
        seconds_per_step=round(expected.per_step, 3),
        own_seconds_per_step=round(own.per_step, 3),
        cost_usd=None if price is None else round(seconds / 3600 * price, 2),
        spot_cost_usd=None if spot_price is None else round(seconds / 3600 * spot_price, 2),
        usd_per_hour=price,
        assumed=(
            _about_speed(instance is not None, gpu, expected.correction, step),
            *_about_fast(step.execution, plain.seconds),
            *_about_drawing(drawn, expected.drawing),
            *_about_prices(instance_type, prices),
        ),
    )


def _about_speed(is_known: bool, gpu: str, correction: Correction | None, step: StepTime) -> str:
    if not is_known:
        return "Speed: the instance type is not in the table; that of the slowest GPU there, one GPU."
    if correction:
        which = ", quoted with the fast U-Net" if step.execution == "fast" else ""
        runs = f"{correction.runs} finished runs of this account on {gpu}{which}"
        return f"Speed: the table's, times {correction.ratio:.2f} after {runs}."
    if step.execution == "fast":
        return "Speed: of the fast U-Net without CUDA graphs, of which one whole run was timed, on an H100."
    if not step.scaled_by:
        return f"Speed: measured on {gpu}."
    target = "" if gpu == MEASURED_GPU else f" to {gpu}"
    return f"Speed: scaled{target} from what was measured on {MEASURED_GPU}: {'; '.join(step.scaled_by)}."


def _about_fast(execution: str, own_seconds: float) -> tuple[str, ...]:
    if execution != "fast":
        return ()
    bound = f"{round(own_seconds)} s, for which budget and time limit leave room"
    return (f"Speed: should the fast U-Net's check refuse it, the trainer's own takes {bound}.",)


def _about_drawing(drawn: Drawing, seconds: float) -> tuple[str, ...]:
    if not drawn.pictures:
        return ()
    pictures = "1 sample picture" if drawn.pictures == 1 else f"{drawn.pictures} sample pictures"
    return (f"Of the time {max(1, round(seconds))} s are estimated for {pictures}.",)


def _about_prices(name: str, prices: Prices) -> tuple[str, ...]:
    price, spot = prices.on_demand(name), prices.spot(name)
    if price is None or spot is None:
        return ()
    source = prices.source(name)
    return (f"Price: {price:.2f} USD an hour on demand ({source}), {spot:.2f} assumed on spot.",)


def max_runtime_seconds(quoted: Quote, limit: int, budget_usd: float | None) -> int:
    """When SageMaker ends the job: twice the quote for the trainer's own U-Net and half an hour.

    At most what the stack allows, and what the budget pays for at the on-demand price.
    """
    seconds = min(limit, _RUNTIME_MARGIN * quoted.own_seconds + _RUNTIME_ALLOWANCE_SECONDS)
    if budget_usd is None or not quoted.usd_per_hour:
        return seconds
    return min(seconds, math.floor(budget_usd / quoted.usd_per_hour * 3600))


def _slower(gpu: str) -> float:
    """How much longer arithmetic takes there than on the GPU on which images were encoded."""
    found, encoded = (recipe.seconds_per_step(64, 2**20, 0.0, one, "plain") for one in (gpu, "H200"))
    return found / encoded
