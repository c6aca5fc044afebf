"""Whether a recipe fits the GPUs that the run may be given, and how it is made to.

What the user set stays; what only the preset says gives way: first the insides of the U-Net's blocks are computed
again instead of kept (gradient checkpointing), then a step is made of several smaller batches. Neither changes how
many images make a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fine_tuning import instances, recipe
from fine_tuning.findings import Finding, error, note, sentence
from fine_tuning.run import MANIFEST_NAME


def adapt(
    values: Mapping[str, Any], by_user: frozenset[str], pixels: int, instance_types: Sequence[str]
) -> tuple[dict[str, Any], list[Finding]]:
    """The options for the smallest of these GPUs that they can be made to fit, and what was changed.

    Args:
        by_user: options that the manifest or the TOML sets.
        pixels: of the largest bucket.
    """
    memories = sorted({m for name in instance_types if (m := instances.memory_gib(name)) is not None})
    for memory in memories:
        for changed in _gentler(dict(values), by_user):
            if fits(changed, pixels, memory):
                return changed, _told(values, changed, memory)
    return dict(values), []


def judge(values: Mapping[str, Any], pixels: int, instance_type: str) -> list[Finding]:
    """An error where the recipe does not fit that instance's GPU."""
    memory = instances.memory_gib(instance_type)
    if memory is None or fits(values, pixels, memory):
        return []
    needed = recipe.memory_gib(values, _batch(values), pixels, _again(values), "plain")
    # Rounded away from each other, so that the two never read the same.
    needs, usable = math.ceil(needed * 10) / 10, math.floor(recipe.usable_gib(memory) * 10) / 10
    on = f"of the {memory:.0f} GiB of {instance_type}'s GPU {usable} can be used"
    message = f"A batch of {_batch(values)} needs about {needs} GiB; {on}."
    return [error("gpu-memory-exceeded", MANIFEST_NAME, message, _remedy(values, pixels, memory))]


def fits(values: Mapping[str, Any], pixels: int, memory: float) -> bool:
    return recipe.fits(values, _batch(values), pixels, _again(values), memory, "plain")


def _gentler(values: dict[str, Any], by_user: frozenset[str]) -> list[dict[str, Any]]:
    """The options as they are, then with ever less memory at a time."""
    found = [values]
    if "gradient_checkpointing" not in by_user and not values.get("gradient_checkpointing"):
        values = {**values, "gradient_checkpointing": True}
        found.append(values)
    if not {"train_batch_size", "gradient_accumulation_steps"} & by_user:
        together = _batch(values) * int(values.get("gradient_accumulation_steps", 1))
        found += [
            {**values, "train_batch_size": batch, "gradient_accumulation_steps": together // batch}
            for batch in range(_batch(values) - 1, 0, -1)
            if together % batch == 0
        ]
    return found


def _told(before: Mapping[str, Any], after: Mapping[str, Any], memory: float) -> list[Finding]:
    changed = [f"{name} = {_shown(after[name])}" for name in after if after[name] != before.get(name)]
    if not changed:
        return []
    message = f"So that it fits a GPU of {memory:.0f} GiB: {', '.join(changed)}. As many images make a step as before."
    remedy = "Set these options in `config` to decide yourself, or name instances with more GPU memory."
    return [note("recipe-fitted", MANIFEST_NAME, message, remedy)]


def _remedy(values: Mapping[str, Any], pixels: int, memory: float) -> str:
    ways = []
    if not values.get("gradient_checkpointing") and fits(
        {**values, "gradient_checkpointing": True}, pixels, memory
    ):
        ways.append("set gradient_checkpointing = true")
    smaller = {**values, "gradient_checkpointing": True}
    largest = next(
        (b for b in range(_batch(values), 0, -1) if fits({**smaller, "train_batch_size": b}, pixels, memory)),
        None,
    )
    if largest is not None and largest < _batch(values):
        ways.append(f"set gradient_checkpointing = true and train_batch_size = {largest}")
    ways += [f"name {name}" for name in _first_that_fits(values, pixels)]
    return sentence(" or ".join(ways) or "lower resolution, network_dim or train_batch_size")


def _first_that_fits(values: Mapping[str, Any], pixels: int) -> list[str]:
    """The cheapest instance of the table whose GPU has room for it."""
    priced = sorted(
        ((i.usd_per_hour, i) for i in instances.known() if i.usd_per_hour is not None),
        key=lambda pair: pair[0],
    )
    return [i.name for _, i in priced if fits(values, pixels, i.memory_gib)][:1]


def _batch(values: Mapping[str, Any]) -> int:
    return int(values.get("train_batch_size", 1))


def _again(values: Mapping[str, Any]) -> float:
    return 1.0 if values.get("gradient_checkpointing") else 0.0


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
