"""More images a step than the preset has, where that is faster and every GPU that the run may be given has room.

learning.py has the rule. Every image is still seen as often. Who sets batch, rate or steps keeps them, and a manifest
with `"recipe": {"scale_batch": false}` keeps the preset's; docs/benchmarks.md compares what is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fine_tuning import instances, learning, recipe
from fine_tuning.buckets import Bucket
from fine_tuning.findings import Finding, note
from fine_tuning.manifest import RecipeWishes
from fine_tuning.run import MANIFEST_NAME


def choose(
    values: Mapping[str, Any],
    by_user: frozenset[str],
    wishes: RecipeWishes,
    filled: Sequence[Bucket],
    epochs: int,
    instance_types: Sequence[str],
    seconds_per_step: Callable[[Mapping[str, Any]], float],
) -> dict[str, Any]:
    """The options that take the preset's place; none where the memory of an instance's GPU is not known.

    Args:
        seconds_per_step: with given options, on the first of the instances.
    """
    found = [instances.find(name) for name in instance_types]
    known = [instance for instance in found if instance]
    if not wishes.scale_batch or len(known) < len(found):
        return {}
    least = recipe.Gpus(max(one.gpus for one in known), min(one.memory_gib for one in known))
    shown = [learning.Filled(bucket.size[0] * bucket.size[1], bucket.images) for bucket in filled]
    rate = wishes.scale_learning_rate
    return learning.learning(values, by_user, shown, epochs, least, seconds_per_step, rate).settings


def told(before: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[Finding]:
    changed = [f"{name} = {value}, not {before.get(name, 1)}" for name, value in chosen.items()]
    if not changed:
        return []
    message = (
        "More images a step than the preset's take less time on this GPU; every image is seen as often as before: "
        f"{'; '.join(changed)}."
    )
    remedy = (
        'To keep the preset\'s, put "recipe": {"scale_batch": false} into the manifest; what `config` sets '
        "stays too."
    )
    return [note("recipe-chosen", MANIFEST_NAME, message, remedy)]
