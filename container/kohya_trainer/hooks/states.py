"""The trainer's states, saved when they are due or asked for."""

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kohya_trainer.hooks.processes import are_finite, loaded_torch
from kohya_trainer.hooks.random_states import gathered_random_states, write_random_states
from kohya_trainer.hooks.save_policy import seconds_between_saves
from kohya_trainer.orders import Orders
from kohya_trainer.trainer_events import tell


class StateSaver:
    """Of one launch."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._asked = False
        self._seconds: float | None = None
        self._saved_at = time.monotonic()

    def is_asked(self) -> bool:
        """For the first time: whether a file has appeared that asks for a state."""
        return not self._asked and Path(self._orders.save_now).exists()

    def is_due(self, step: int, step_seconds: float) -> bool:
        """By the orders' steps, or by the clock; `step_seconds` is what a step takes."""
        if every := self._orders.save_every:
            return step % every == 0
        return time.monotonic() - self._saved_at >= seconds_between_saves(self._seconds, step_seconds)

    def save(self, step: int, loop: Mapping[str, Any], asked: bool) -> None:
        """All processes between the same steps: the main one writes, and is told the random numbers of the others.

        The step and, between epochs, the epoch in train_state.json are the next ones; a restart reads neither.
        """
        accelerator = loop["accelerator"]
        self._asked = self._asked or asked
        # With accumulation the trainer can go on only from the end of an epoch.
        accumulates = int(loop["args"].gradient_accumulation_steps) > 1
        if accumulates and step % loop["num_update_steps_per_epoch"] != 0:
            if asked and accelerator.is_main_process:
                tell("no-state", step=step)
            return
        began = time.monotonic()
        torch = loaded_torch()
        numbers = gathered_random_states(torch, accelerator) if torch else []
        if not accelerator.is_main_process:
            return
        if not are_finite(_trained(loop["optimizer"])):
            # The loss was finite, its gradients were not: the next step says so, and must not be gone on from here.
            if asked:
                tell("no-state", step=step)
            return
        folder = Path(self._orders.states) / f"step-{step:08d}"
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        accelerator.save_state(str(partial))
        write_random_states(torch, partial, numbers)
        partial.rename(folder)
        self._saved_at = time.monotonic()
        self._seconds = self._saved_at - began
        tell(
            "state",
            step=step,
            path=str(folder),
            seconds=self._seconds,
            batches=len(loop["train_dataloader"]),
            asked=asked,
        )


def _trained(optimizer: Any) -> Iterator[Any]:
    for group in optimizer.param_groups:
        yield from group["params"]
