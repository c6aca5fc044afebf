"""Whether a validation split holds any image back: where it does not, the trainer says no word of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fine_tuning.buckets import trained_on
from fine_tuning.findings import Finding, warning
from fine_tuning.layout import TrainingFolder


def judge(folders: Sequence[TrainingFolder], values: Mapping[str, Any], where: str) -> list[Finding]:
    """A warning where no image is held back from training.

    Args:
        values: the resolved configuration.
        where: the file that asks for the split.
    """
    share = values.get("validation_split")
    counts = [len(folder.images) for folder in folders if not folder.is_regularization and folder.images]
    if not share or not counts or any(_held_back(count, share) for count in counts):
        return []
    most = max(counts)
    comes_to = "no validation loss is measured, and neither early stop nor best model go by one"
    if any(round(count * share) for count in counts):
        comes_to = "what is validated with is trained on as well"
    message = f"validation_split is {share}, which holds back none of a folder's images (at most {most}): {comes_to}."
    least = next((n / 100 for n in range(1, 100) if _held_back(most, n / 100)), None)
    remedy = "Remove it, or add images."
    if least is not None:
        remedy = f"Raise it to {least}, which holds back an image of a folder of {most}, or remove it."
    return [warning("nothing-held-back", where, message, remedy)]


def _held_back(images: int, share: float) -> int:
    """Of a folder: those that are not trained on; round() of them are validated with."""
    return images - trained_on(images, share)
