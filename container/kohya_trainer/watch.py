"""Follows a running trainer: prints its lines, counts the run's own steps, collects states, notices a
broken loss.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kohya_trainer.checkpoints import CheckpointStore
from kohya_trainer.errors import TrainerFailedError
from kohya_trainer.failure import LINES_CLASSIFIED, diverged
from kohya_trainer.learning_rate import learning_rate
from kohya_trainer.loss_history import LossHistory
from kohya_trainer.progress import Bar, Line, OutputReader, Progress, is_diverged
from kohya_trainer.resume import ResumePoint

SECONDS_BETWEEN_TRANSIENT_LINES = 10.0
_TOTAL = re.compile(r"total optimization steps\D*[:=] *(\d+)")
_BATCHES = re.compile(r"num batches per epoch .*: *(\d+)")
_STATE = re.compile(r".*-step(\d{8})-state$")


class TrainingWatch:
    """Owns the step counter: the trainer's starts anew in every launch, the run's does not."""

    def __init__(
        self,
        options: Mapping[str, Any],
        output: Path,
        store: CheckpointStore,
        history: LossHistory,
        resume: ResumePoint | None,
        say: Callable[[str], None],
    ) -> None:
        self._options = options
        self._output = output
        self._store = store
        self._history = history
        self._say = say
        self._done = resume.done if resume else 0
        self._counter_start = resume.counter_start if resume else 0
        self._diluted = resume.diluted if resume else 0
        self._accumulation = int(options.get("gradient_accumulation_steps", 1))
        self._reader = OutputReader()
        self._lines: deque[str] = deque(maxlen=LINES_CLASSIFIED)
        self._held: Progress | None = None
        self._began = time.monotonic()
        self._last_transient = -SECONDS_BETWEEN_TRANSIENT_LINES
        self._batches = 0
        self._last_reported = -1
        self.total = 0
        self.step = self._done
        self.loss: float | None = None
        self.error: TrainerFailedError | None = None

    @property
    def lines(self) -> list[str]:
        """The last lines of the log, progress left out."""
        return list(self._lines)

    def output(self, chunk: bytes) -> None:
        """Takes what the trainer wrote."""
        self._handle(self._reader.feed(chunk))

    def silence(self) -> None:
        """Nothing more comes for now: the newest step's loss will not be redrawn."""
        self._report_held()

    def close(self) -> None:
        """The output has ended."""
        self._handle(self._reader.close())
        self._report_held()

    def must_stop(self) -> bool:
        """True as soon as going on is useless."""
        return self.error is not None

    def _handle(self, events: list[Bar | Line]) -> None:
        for event in events:
            if isinstance(event, Bar):
                self._bar(event)
            else:
                self._line(event)

    def _line(self, line: Line) -> None:
        if line.transient:
            now = time.monotonic()
            if now - self._last_transient < SECONDS_BETWEEN_TRANSIENT_LINES:
                return
            self._last_transient = now
        self._lines.append(line.text)
        self._say(line.text)
        if match := _TOTAL.search(line.text):
            self.total = int(match[1])
        if match := _BATCHES.search(line.text):
            self._batches = int(match[1])

    def _bar(self, bar: Bar) -> None:
        """The first drawing of a step still shows the loss of the step before, so a step is reported when
        it is over.
        """
        if self.error or bar.done == 0 or bar.loss is None:
            return
        step, total = self._done + bar.done, self.total or bar.total
        if self._held and step > self._held.step:
            self._report_held()
        self.step = max(self.step, step)
        self._held = Progress(
            step=step,
            total=total,
            loss=self._undiluted(bar.loss, bar.done),
            learning_rate=learning_rate(self._options, step, total),
            seconds_per_step=bar.seconds_per_step,
        )
        if is_diverged(bar.loss):
            self._report_held()
            self.error = diverged(step, bar.loss)

    def _undiluted(self, average: float, done: int) -> float:
        """The average of the losses there are; the trainer's has one zero among them at first."""
        if done > self._diluted:
            return average
        batches = done * self._accumulation
        return float(f"{average * (batches + 1) / batches:.3g}")  # no more digits than the trainer tells

    def _report_held(self) -> None:
        held, self._held = self._held, None
        if held is None or held.step == self._last_reported:
            return
        self._last_reported = held.step
        self.loss = held.loss
        self._say(held.text())
        self._history.add(held, time.monotonic() - self._began)
        if not is_diverged(held.loss):
            self._collect_states(held.step)

    def _collect_states(self, step: int) -> None:
        """A state folder is finished when the trainer has made a further step; it saves between two steps."""
        for state in sorted(self._output.glob("*-state")):
            match = _STATE.match(state.name)
            if match is None:
                continue
            saved_at = self._done + int(match[1]) - self._counter_start
            if self._done < saved_at < step:
                kept = self._store.keep(state, saved_at, self.total, self._batches)
                self._say(f"checkpoint step={kept.step}")
