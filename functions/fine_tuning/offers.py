"""A run offered on each instance type of its ladder: its recipe, length, quote and time limit, and what is to say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fine_tuning import buckets, instances, interruptions, larger_batch, learning_rates, memory_fit, quote
from fine_tuning.configuration import Configuration
from fine_tuning.drawing import drawing
from fine_tuning.findings import Finding, error, note, sentence, warning
from fine_tuning.ladder import Offer
from fine_tuning.limits import Limits, budget
from fine_tuning.manifest import Manifest
from fine_tuning.quote import Quote
from fine_tuning.run import MANIFEST_NAME
from fine_tuning.schedule import Schedule, schedule
from fine_tuning.speed import gpu_of, step_time


def offers(
    manifest: Manifest,
    configurations: Mapping[int, Configuration],
    before: Mapping[str, Any],
    filled: Sequence[buckets.Bucket],
    images: int,
    resolution: buckets.Size,
    limits: Limits,
) -> list[Offer]:
    """One for each instance type that the manifest, else the stack, names.

    Args:
        configurations: number of GPUs → with the recipe that `fitted` chose for them.
        before: the options as the sources say them.
        filled: the buckets of an epoch; `images`: files behind them.
        resolution: (width, height) that buckets are made for.
    """
    pixels = max(bucket.pixels for bucket in filled)

    def offer(name: str) -> Offer:
        gpus = instances.gpus(name)
        configuration = configurations[gpus]
        values = configuration.values
        by_user = configuration.by_user

        def quoted_for(instance_type: str, length: Schedule) -> Quote:
            gpu = gpu_of(instances.find(instance_type))
            return quote.quote(
                instance_type=instance_type,
                steps=length.total_steps,
                images=images,
                resolution=resolution,
                config=values,
                prices=limits.prices,
                corrections=limits.corrections,
                by_user=by_user,
                kohya_version=limits.kohya_version,
                drawn=drawing(manifest.sample_prompts, values, length, resolution, gpu, gpus),
            )

        length, notes = schedule(
            configuration.layers,
            buckets.batches(filled, values.get("train_batch_size", 1)),
            values.get("gradient_accumulation_steps", 1),
            gpus,
            configuration.epochs,
        )
        quoted = quoted_for(name, length)
        runtime = quote.max_runtime_seconds(quoted, limits.max_runtime_seconds, budget(manifest, limits))
        others = [quoted_for(other, length) for other in _alternatives(values, pixels, name)]
        about = (
            *notes,
            *larger_batch.multiplied(before, values, configuration.chosen, gpus, length.total_steps),
            *learning_rates.judge_warm_up(
                values, length.total_steps, gpus, configuration.where("lr_warmup_steps")
            ),
            *memory_fit.judge(values, pixels, name),
            *_about_cost(quoted, length, others, budget(manifest, limits), runtime),
            *_about_time(quoted, limits.max_runtime_seconds),
            *_about_spot(quoted, manifest.spot),
            *interruptions.judge(values, limits.kohya_version, manifest.spot),
        )
        return Offer(quoted, length, runtime, about)

    return [offer(name) for name in manifest.instance_types or limits.instance_types]


def fitted(
    manifest: Manifest,
    configuration: Configuration,
    filled: Sequence[buckets.Bucket],
    resolution: buckets.Size,
    limits: Limits,
    kept: Mapping[str, Any] | None = None,
) -> dict[int, tuple[Configuration, list[Finding]]]:
    """Number of GPUs → the recipe for the instance types of the ladder that have as many; only such make one run.

    It uses the smallest of their GPUs well, or is made to fit it; what the user set stays.

    Args:
        kept: what was chosen for the run that is retried; it is chosen again.
    """
    by_gpus: dict[int, list[str]] = {}
    for name in manifest.instance_types or limits.instance_types:
        by_gpus.setdefault(instances.gpus(name), []).append(name)
    return {
        gpus: _fitted(manifest, configuration, filled, resolution, limits, names, gpus, kept)
        for gpus, names in by_gpus.items()
    }


def _fitted(
    manifest: Manifest,
    configuration: Configuration,
    filled: Sequence[buckets.Bucket],
    resolution: buckets.Size,
    limits: Limits,
    instance_types: Sequence[str],
    gpus: int,
    kept: Mapping[str, Any] | None,
) -> tuple[Configuration, list[Finding]]:
    by_user = configuration.by_user
    values = configuration.values
    first = instances.find(instance_types[0])

    pixels = max(bucket.pixels for bucket in filled)

    def seconds_per_step(options: Mapping[str, Any]) -> float:
        trained, _ = memory_fit.adapt(options, by_user, pixels, instance_types)
        return step_time(trained, resolution, first, by_user, limits.kohya_version).expected

    # As many as with the preset's batch, which several GPUs share: images seen stay what they are.
    epochs = schedule(
        configuration.layers,
        buckets.batches(filled, values.get("train_batch_size", 1)),
        values.get("gradient_accumulation_steps", 1),
    )[0].epochs
    chosen = kept
    if chosen is None:
        chosen = larger_batch.choose(
            values=values,
            by_user=by_user,
            wishes=manifest.recipe,
            filled=filled,
            epochs=epochs,
            instance_types=instance_types,
            seconds_per_step=seconds_per_step,
        )
    changed, told = memory_fit.adapt({**values, **chosen}, by_user, pixels, instance_types)
    found = replace(configuration, values=changed, chosen=dict(chosen), epochs=epochs if chosen else None)
    return found, [*larger_batch.told(values, chosen, gpus), *told]


def _alternatives(values: Mapping[str, Any], pixels: int, instance_type: str) -> list[str]:
    """Instance types with as many GPUs, so that the steps are the same, that the recipe fits."""
    return [
        one.name
        for one in instances.known()
        if one.gpus == instances.gpus(instance_type) and memory_fit.fits(values, pixels, one.memory_gib)
    ]


def _way_within(budget: float, quoted: Quote, length: Schedule, cheaper: Sequence[Quote]) -> str:
    """The change that makes the quote fit: another instance, or fewer epochs."""
    ways = []
    best = min(cheaper, key=lambda q: math.inf if q.most_usd is None else q.most_usd, default=None)
    if best is not None and best.most_usd is not None and best.most_usd <= budget:
        ways.append(f"name {best.instance_type}, quoted at {best.most_usd:.2f} USD")
    an_epoch = math.ceil(length.total_steps / length.epochs)
    if (epochs := quoted.steps_for(budget) // an_epoch) >= 1:
        ways.append(f"set max_train_epochs = {epochs}")
    ways.append(f"raise max_cost_usd to {quoted.most_usd:.2f} (manifest and stack)")
    return sentence(", or ".join(ways))


def _about_cost(
    quoted: Quote, length: Schedule, others: Sequence[Quote], budget_usd: float | None, runtime: int
) -> list[Finding]:
    if quoted.most_usd is None:
        message = f"No price of {quoted.instance_type} is known, so the cost cannot be quoted."
        if budget_usd is None:
            remedy = (
                "Name another instance type for a quote, or give its price in the stack's PricesUsdPerHour."
            )
            return [warning("price-unknown", MANIFEST_NAME, message, remedy)]
        remedy = (
            "Name another instance type, give its price in the stack's PricesUsdPerHour, or set no budget."
        )
        return [error("price-unknown", MANIFEST_NAME, message, remedy)]
    if budget_usd is None:
        return []
    if quoted.most_usd > budget_usd:
        own = " with the trainer's own U-Net" if quoted.own_seconds > quoted.seconds else ""
        message = f"The run is quoted at {quoted.most_usd:.2f} USD{own}; the budget is {budget_usd:.2f} USD."
        remedy = _way_within(budget_usd, quoted, length, others)
        return [error("budget-exceeded", MANIFEST_NAME, message, remedy)]
    message = (
        f"The job is ended after {runtime} s at the latest, so that it costs at most {budget_usd:.2f} USD."
    )
    return [note("budget-kept", MANIFEST_NAME, message)]


def _about_time(quoted: Quote, allowed: int) -> list[Finding]:
    if quoted.own_seconds <= allowed:
        return []
    message = f"The run is quoted at {quoted.own_seconds} s; this stack ends jobs after {allowed} s."
    remedy = "Train fewer steps, name a faster instance type, or raise MaxTrainingRuntimeInSeconds."
    return [error("runtime-exceeded", MANIFEST_NAME, message, remedy)]


def _about_spot(quoted: Quote, spot: bool) -> list[Finding]:
    if not spot or quoted.spot_cost_usd is None:
        return []
    message = (
        "The budget is held against the on-demand price, since the run may fall back on it; "
        f"on spot capacity about {quoted.spot_cost_usd:.2f} USD are expected."
    )
    return [note("spot-quote", MANIFEST_NAME, message)]
