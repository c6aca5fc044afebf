"""More images a step than the preset has, where that is faster and every GPU that the run may be given has room; and of
several GPUs each its share.

learning.py has the rule. Every image is still seen as often. Who sets batch, rate or steps keeps them, and a manifest
with `"recipe": {"scale_batch": false}` keeps the preset's; docs/benchmarks.md compares what is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fine_tuning import instances, learning, recipe
from fine_tuning.buckets import Bucket
from fine_tuning.findings import Finding, note, sentence, warning
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
        instance_types: with as many GPUs as each other.
        seconds_per_step: with given options, on the first of the instances.
    """
    found = [instances.find(name) for name in instance_types]
    known = [instance for instance in found if instance]
    if len(known) < len(found):
        return {}
    least = recipe.Gpus(known[0].gpus, min(one.memory_gib for one in known))
    return learning.learning(
        options=values,
        chosen_by_user=by_user,
        buckets=filled,
        epochs=epochs,
        gpus=least,
        seconds_per_step=seconds_per_step,
        scale_batch=wishes.scale_batch,
        scale_learning_rate=wishes.scale_learning_rate,
    ).settings


def told(before: Mapping[str, Any], chosen: Mapping[str, Any], gpus: int = 1) -> list[Finding]:
    """What was chosen in place of the options `before`, where each of these GPUs shows a batch of its own in a step."""
    changed = "; ".join(f"{name} = {value}, not {before.get(name, 1)}" for name, value in chosen.items())
    if not changed:
        return []
    if gpus == 1:
        message = (
            "More images a step than the preset's take less time on this GPU; every image is seen as often as before: "
            f"{changed}."
        )
        remedy = (
            'To keep the preset\'s, put "recipe": {"scale_batch": false} into the manifest; what `config` sets '
            "stays too."
        )
    else:
        wished = learning.images_of_a_step(before)
        shown = learning.images_of_a_step({**before, **chosen}) * gpus
        preset = "" if shown == wished else f", the preset's has {wished}"
        message = (
            f"{gpus} GPUs share a step of {shown} images{preset}; every image is seen as often: {changed}."
        )
        remedy = "To decide yourself, set train_batch_size in `config`: it is each GPU's."
    return [note("recipe-chosen", MANIFEST_NAME, message, remedy)]


def multiplied(
    before: Mapping[str, Any], after: Mapping[str, Any], chosen: Mapping[str, Any], gpus: int, steps: int
) -> list[Finding]:
    """A warning where several GPUs show more images in a step than was compared, or than the learning rate is for."""
    wished, shown = learning.images_of_a_step(before), learning.images_of_a_step(after) * gpus
    follows = any(name in chosen for name in learning.RATES)
    if gpus == 1 or shown <= wished or (follows and steps >= learning.LEAST_STEPS):
        return []
    rate = "so few that no run was compared" if follows else f"at the learning rate that was set for {wished}"
    message = f"Each of {gpus} GPUs shows a batch of its own: {steps} steps of {shown} images, {rate}."
    share = f"set train_batch_size = {wished // gpus}, which is each GPU's, or " if wished >= gpus else ""
    otherwise = "set more max_train_epochs" if follows else "raise the learning rate for so many images"
    remedy = sentence(f"{share}name an instance with fewer GPUs, or {otherwise}")
    return [warning("images-multiplied", MANIFEST_NAME, message, remedy)]
