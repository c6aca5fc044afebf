"""How long to train: never the trainer's silent default of 1600 steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fine_tuning.findings import Finding, note
from fine_tuning.run import MANIFEST_NAME

PLANNED_EPOCHS = 10
# Where ten epochs of a large dataset would be far more than a LoRA needs, fewer are planned.
TARGET_STEPS = 3000


@dataclass(frozen=True)
class Schedule:
    """Optimizer steps, and the epochs that they make (the last one may be cut short)."""

    total_steps: int
    epochs: int


def schedule(
    layers: Sequence[Mapping[str, Any]],
    batches_per_epoch: int,
    accumulation: int,
    processes: int = 1,
    epochs_planned: int | None = None,
) -> tuple[Schedule, list[Finding]]:
    """The steps to train.

    Args:
        layers: options of each source, the weightiest first; the first that says steps or epochs decides.
            Within one source epochs override steps, as in the trainer (sd-scripts, train_network.py,
            "override steps").
        batches_per_epoch: at least 1.
        accumulation: batches of a process that make a step.
        processes: one a GPU; they share the batches, the last ones filled up (train_network.py: the length of
            the data loader after accelerator.prepare).
        epochs_planned: where no layer says a length: those of the preset's batch, where the plan took a larger one;
            by default as many as make no more than TARGET_STEPS.
    """
    per_epoch = math.ceil(math.ceil(batches_per_epoch / processes) / accumulation)
    for layer in layers:
        if (epochs := layer.get("max_train_epochs")) is not None:
            return Schedule(epochs * per_epoch, epochs), []
        if (steps := layer.get("max_train_steps")) is not None:
            return Schedule(steps, math.ceil(steps / per_epoch)), []
    of_this_batch = max(1, min(PLANNED_EPOCHS, TARGET_STEPS // per_epoch))
    epochs = epochs_planned or of_this_batch
    planned = Schedule(epochs * per_epoch, epochs)
    because = ""
    if epochs != of_this_batch:
        because = ", as many as with the preset's batch"
    elif per_epoch > TARGET_STEPS:
        because = f", although it alone exceeds {TARGET_STEPS} steps"
    elif PLANNED_EPOCHS * per_epoch > TARGET_STEPS:
        because = f", because {PLANNED_EPOCHS} would exceed {TARGET_STEPS} steps"
    length = f"{epochs} {'epoch was' if epochs == 1 else 'epochs were'} planned{because}: {planned.total_steps} steps"
    message = f"Nothing says how long to train, so {length}."
    remedy = "Set max_train_epochs or max_train_steps in `config` for another length."
    return planned, [note("steps-planned", MANIFEST_NAME, message, remedy)]
