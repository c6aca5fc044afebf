"""Steps out of the trainer's progress bar, for trainers whose loop the hooks do not know."""

from collections.abc import Mapping
from typing import Any

from kohya_trainer.learning_rate import learning_rate
from kohya_trainer.progress import Bar, Progress
from kohya_trainer.resume import ResumePoint


class BarReader:
    """The first drawing of a step still shows the loss of the step before, so a step is told when it is over."""

    def __init__(self, options: Mapping[str, Any], resume: ResumePoint | None) -> None:
        self._options = options
        self._done = resume.done if resume else 0
        self._diluted = resume.diluted if resume else 0
        self._accumulation = int(options.get("gradient_accumulation_steps", 1))
        self._held: Progress | None = None
        self._last_told = -1
        self.counter_start = resume.counter_start if resume else 0

    def add(self, bar: Bar, total: int) -> Progress | None:
        """The step before, if this bar shows that it is over; `total` is 0 while it is not announced."""
        if bar.done == 0 or bar.loss is None:
            return None
        step, total = self._done + bar.done, total or bar.total
        over = self.settled() if self._held and step > self._held.step else None
        self._held = Progress(
            step=step,
            total=total,
            loss=self._undiluted(bar.loss, bar.done),
            learning_rate=learning_rate(self._options, step, total),
            seconds_per_step=bar.seconds_per_step,
        )
        return over

    def settled(self) -> Progress | None:
        """The newest step: nothing more comes for now that would change it."""
        held, self._held = self._held, None
        if held is None or held.step == self._last_told:
            return None
        self._last_told = held.step
        return held

    def _undiluted(self, average: float, done: int) -> float:
        """The average of the losses there are; the trainer's has one zero among them at first."""
        if done > self._diluted:
            return average
        batches = done * self._accumulation
        return float(f"{average * (batches + 1) / batches:.3g}")  # no more digits than the trainer tells
