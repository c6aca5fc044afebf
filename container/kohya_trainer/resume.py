"""Where a restarted trainer must begin, so that it makes exactly the steps that are missing.

The trainer's own counting after `resume` is wrong in several cases: its counter restarts inside the
epoch, it can run past max_train_steps, and with gradient accumulation it mixes batches and steps. So its
loop (train_network.py of sd-scripts 2e0fcc5, "calculate steps to skip when resuming" and the training
loop) is simulated here, and the initial_step is chosen for which it makes the right number of steps.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kohya_trainer.options import OptionTable


@dataclass(frozen=True)
class ResumePoint:
    """`done`: steps already made. `counter_start`: what the trainer's own counter begins with. `skip`:
    whether the trainer passes over as many batches of the epoch as were seen; it shuffles the rest anew.
    `diluted`: so many steps, from the first one, are told with an average that counts one zero too many.
    `exact`: the trainer goes on with the very batch that comes next, which takes the hooks.
    """

    state: Path
    done: int
    initial_step: int
    counter_start: int
    skip: bool
    diluted: int = 0
    exact: bool = False


@dataclass(frozen=True)
class Loop:
    """The trainer's loop: `batches` of an epoch, gradient `accumulation`, `total` optimizer steps."""

    batches: int
    accumulation: int
    total: int

    @property
    def steps_of_epoch(self) -> int:
        """The trainer's num_update_steps_per_epoch."""
        return math.ceil(self.batches / self.accumulation)

    def start(self, initial_step: int, skip: bool) -> tuple[int, int]:
        """Epoch and counter with which the trainer begins; the counter is also the batches it skips."""
        if not skip:
            return initial_step // self.steps_of_epoch, 0
        skipped = initial_step * self.accumulation
        epoch = skipped // self.steps_of_epoch
        return epoch, skipped - epoch * self.batches

    def diluted(self, initial_step: int, skip: bool) -> int:
        """The trainer's LossRecorder fills the place of the last batch it passed over with a zero, unless it is
        in its first epoch; the next epoch writes a real loss there.
        """
        epoch, counter = self.start(initial_step, skip)
        if epoch == 0 or counter <= 0:
            return 0
        return math.ceil(max(self.batches - counter, 0) / self.accumulation)

    def steps_made(self, initial_step: int, skip: bool) -> int:
        """Optimizer steps from this initial_step to the trainer's end."""
        epoch, counter = self.start(initial_step, skip)
        passed, made = max(counter, 0), 0
        for _ in range(epoch, math.ceil(self.total / self.steps_of_epoch)):
            # Skipping counts batches, and accumulation restarts with the first batch that is not skipped.
            steps = math.ceil(max(self.batches - passed, 0) / self.accumulation)
            # The limit is looked at after a step, and ends the epoch only: each later one makes one more.
            steps = min(steps, max(1, self.total - counter))
            made, counter, passed = made + steps, counter + steps, 0
        return made


def can_resume(table: OptionTable) -> bool:
    """Before v23 the trainer restarts its counter, its data and (but for a constant rate) its schedule."""
    return "initial_step" in table and "skip_until_initial_step" in table


def resume_point(state: Path, done: int, loop: Loop, hooked: bool) -> ResumePoint | None:
    """None when the trainer cannot be made to do exactly the missing steps from this state.

    hooked: the hooks end the trainer after the run's last step, and with accumulation save between epochs alone.
    """
    if not 0 < done < loop.total or loop.batches < 1:
        return None
    if hooked and loop.accumulation == 1:
        return ResumePoint(state, done, done, done % loop.batches, skip=True, exact=True)
    if hooked and done % loop.steps_of_epoch == 0:
        # Of an initial_step that passes over no batches the trainer takes the epoch, and counts from 0.
        return ResumePoint(state, done, done, 0, skip=False, exact=True)
    # The step itself goes on where the epoch was; the next best are the nearest ones.
    nearest = sorted(range(1, loop.total), key=lambda step: (abs(step - done), step))
    for skip in (True, False):
        for initial_step in nearest:
            counter = loop.start(initial_step, skip)[1]
            if counter >= 0 and loop.steps_made(initial_step, skip) == loop.total - done:
                diluted = loop.diluted(initial_step, skip)
                return ResumePoint(state, done, initial_step, counter, skip, diluted)
    return None


def save_interval(total_steps: int, epochs: int | None = None, accumulation: int = 1) -> int:
    """Steps between two saved states: about ten states a run, never more often than every ten steps.

    With accumulation the trainer can go on exactly only from the end of an epoch, so states are saved there.
    """
    wanted = max(10, min(200, math.ceil(total_steps / 10)))
    if accumulation > 1 and epochs and total_steps % epochs == 0:
        steps_of_epoch = total_steps // epochs
        return steps_of_epoch * math.ceil(wanted / steps_of_epoch)
    return wanted


def expected_steps(options: Mapping[str, Any], table: OptionTable, planned: int | None, examples: int) -> int:
    """The plan's number; without a plan the TOML's, or nearly its epochs' (aspect buckets left out)."""
    if planned:
        return planned
    if epochs := options.get("max_train_epochs"):
        together = int(options.get("train_batch_size", 1)) * int(
            options.get("gradient_accumulation_steps", 1)
        )
        return int(epochs) * math.ceil(examples / max(1, together))
    return int(options.get("max_train_steps", table.options["max_train_steps"].get("default", 1600)))
