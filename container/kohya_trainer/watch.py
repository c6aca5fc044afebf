"""Follows a running trainer: prints its lines, counts the run's own steps, keeps states, notices a loss that breaks and
a trainer that is stuck.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kohya_trainer.bars import BarReader
from kohya_trainer.best_model import BestModel, drop_all_but, find_best, keep_best
from kohya_trainer.divergence import DivergenceWatch
from kohya_trainer.errors import TrainerFailedError
from kohya_trainer.failure import LINES_CLASSIFIED, diverged, diverged_in_validation, diverging, stalled
from kohya_trainer.kept_results import Copy, ResultKeeper, wait_for, whole
from kohya_trainer.loss_history import SmoothedLoss
from kohya_trainer.nvidia_smi import gpu_state
from kohya_trainer.orders import Orders
from kohya_trainer.progress import Bar, Line, OutputReader, Progress, is_diverged
from kohya_trainer.run_so_far import RunSoFar
from kohya_trainer.trainer_events import decode

SECONDS_BETWEEN_TRANSIENT_LINES = 10.0
# So long a state that nobody asked for waits for copies of what was made before it: a signal may come meanwhile.
SECONDS_FOR_RESULTS = 10.0
# Of the newest step in seconds_per_step.
WEIGHT = 0.1
_TOTAL = re.compile(r"total optimization steps\D*[:=] *(\d+)")
_BATCHES = re.compile(r"num batches per epoch .*: *(\d+)")
_PROMPT = re.compile(r"\b(negative_)?prompt: ")
_STATE = re.compile(r".*-step(\d{8})-state$")


class TrainingWatch:
    """Owns the step counter: the trainer's starts anew in every launch, the run's does not.

    orders: what the hooks in the trainer's process were told; None where there are none and its bars are read.
    private: prompts and the names of files are kept out of log and failure.
    second: on another host than the first, where the main process is: of the training's steps nothing is told here.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        output: Path,
        so_far: RunSoFar,
        orders: Orders | None,
        stall_seconds: float,
        private: bool,
        second: bool,
        say: Callable[[str], None],
    ) -> None:
        self._output, self._so_far = output, so_far
        final = f"{options.get('output_name')}.safetensors"
        self._results = ResultKeeper(output, so_far.results, final, so_far.listed)
        self._unlisted: dict[str, Copy] = {}
        self._say = say
        self._orders = orders
        self._stall_seconds, self._private, self._second = stall_seconds, private, second
        self._bars = BarReader(options, so_far.resume)
        self._reader = OutputReader()
        self._lines: deque[str] = deque(maxlen=LINES_CLASSIFIED)
        self._began = self._heard_at = time.monotonic()
        self._last_transient = -SECONDS_BETWEEN_TRANSIENT_LINES
        self._batches = 0
        self._seconds_per_step: float | None = None
        entries = so_far.history.entries
        self._smoothed = SmoothedLoss(entries[-1].get("loss") if entries else None, len(entries))
        self._divergence = DivergenceWatch()
        self._kept = so_far.resume.done if so_far.resume else None
        self._saved = False
        self._hiding = False
        self.total = 0
        self.step = so_far.done
        self.loss: float | None = None
        self.best: BestModel | None = find_best(so_far.validations)
        self.stopped_early = False
        self.error: TrainerFailedError | None = None

    @property
    def lines(self) -> list[str]:
        """The last lines of the log, progress left out."""
        return list(self._lines)

    @property
    def kept(self) -> int | None:
        """The step of the newest state."""
        return self._kept

    def output(self, chunk: bytes) -> None:
        self._heard_at = time.monotonic()
        self._handle(self._reader.feed(chunk))
        self._list_results()

    def silence(self) -> None:
        """The newest bar's loss will not be redrawn; or the trainer is stuck."""
        self._report(self._bars.settled())
        self._list_results()
        silent = time.monotonic() - self._heard_at
        if silent > self._stall_seconds and not self.error:
            gpu = gpu_state()
            self._lines.append(f"silent for {silent:.0f} s; GPU: {gpu or 'none'}")
            self.error = stalled(self.step, silent, gpu)

    def close(self) -> None:
        """The output has ended."""
        self._handle(self._reader.close())
        self._report(self._bars.settled())
        self._list_results()

    def must_stop(self) -> bool:
        return self.error is not None or self.stopped_early

    def made_all_steps(self) -> bool:
        return 0 < self.total == self.step

    def ask_to_save(self) -> bool:
        """Before the first step of this launch there is nothing new to save. A host that ended before the first one
        has saved would take its step with it.
        """
        if not self._orders or (self.step == self._so_far.done and not self._second):
            return False
        Path(self._orders.save_now).touch()
        return True

    def has_saved(self) -> bool:
        """Also what was made before the state."""
        return self._saved and not self._unlisted

    def _handle(self, events: list[Bar | Line]) -> None:
        for event in events:
            if isinstance(event, Bar):
                self._bar(event)
            elif told := decode(event.text):
                self._told(told)
            else:
                self._line(event)

    def _bar(self, bar: Bar) -> None:
        if self._orders or self.error:
            return
        self._report(self._bars.add(bar, self.total))
        if is_diverged(bar.loss):
            self._report(self._bars.settled())

    def _line(self, line: Line) -> None:
        if line.transient:
            now = time.monotonic()
            if now - self._last_transient < SECONDS_BETWEEN_TRANSIENT_LINES:
                return
            self._last_transient = now
        # Kohya's logger goes on below in lines that begin with blanks.
        continued = self._hiding and line.text.startswith(" ")
        self._hiding = self._private and (continued or _PROMPT.search(line.text) is not None)
        if self._hiding:
            return
        self._lines.append(line.text)
        self._say(line.text)
        if self._orders:
            # Told with each step: what is printed may be torn.
            return
        if match := _TOTAL.search(line.text):
            self.total = int(match[1])
        if match := _BATCHES.search(line.text):
            self._batches = int(match[1])

    def _told(self, event: Mapping[str, Any]) -> None:
        """What the hooks say. After an error nothing counts any more."""
        if self.error or self.stopped_early:
            return
        match event["event"]:
            case "step":
                self._stepped(event)
            case "state":
                path, asked = Path(event["path"]), event["asked"]
                self._keep(path, event["step"], event["batches"], event["seconds"], asked)
                self._saved = self._saved or asked
            case "no-state":
                self._saved = True
            case "validation":
                self._validated(event)
            case "no-picture":
                # Counted as in the manifest's list.
                self._say(
                    f"sample prompt {event['index'] + 1} is not drawn: the GPU has no room for its picture"
                )

    def _stepped(self, event: Mapping[str, Any]) -> None:
        step, loss, seconds = event["step"], event["loss"], event["seconds"]
        files = [] if self._private else [str(name) for name in event["files"]]
        more = int(event["more_files"])
        self.step, self.total = step, event["total"]
        known = self._seconds_per_step
        # The first step includes what the GPU compiles.
        self._seconds_per_step = (
            seconds if known is None or step <= self._so_far.done + 2 else known + WEIGHT * (seconds - known)
        )
        broken = is_diverged(loss)
        self.loss = loss if broken else self._smoothed.add(loss)
        per_step = self._seconds_per_step
        progress = Progress(
            step=step,
            total=self.total,
            loss=self.loss,
            learning_rate=event["learning_rate"],
            seconds_per_step=per_step,
            images_per_second=event["images"] / per_step if per_step and event["images"] else None,
            gpu_gib=event["gpu_gib"],
        )
        self._tell(progress, loss)
        # What belongs to the step before is written.
        self._results.notice()
        if broken:
            self.error = diverged(step, loss, files, more, self._kept)
        elif self._divergence.add(loss):
            self.error = diverging(step, loss, files, more, self._kept)

    def _validated(self, event: Mapping[str, Any]) -> None:
        step, loss = event["step"], event["loss"]
        self._say(f"validation step={step} validation_loss={loss:.6g}")
        if is_diverged(loss):
            self.error = diverged_in_validation(step, loss, self._kept)
            return
        self._so_far.validations.add(step=step, loss=loss)
        if event["model"]:
            self.best = keep_best(self._output / event["model"], self._so_far.folder, step, loss)
        if event["stop"]:
            self.stopped_early = True
            self._say(f"no better validation in {event['waited']}: the training ends")

    def _report(self, progress: Progress | None) -> None:
        """A step that the bars told, with their moving average for its loss."""
        if progress is None or self.error:
            return
        self.step, self.loss = max(self.step, progress.step), progress.loss
        self._tell(progress, None)
        if is_diverged(progress.loss):
            self.error = diverged(progress.step, progress.loss, kept=self._kept)
            return
        # A state folder is finished when the trainer has made a further step; it saves between two steps.
        for state in sorted(self._output.glob("*-state")):
            match = _STATE.match(state.name)
            saved_at = self._so_far.done + int(match[1]) - self._bars.counter_start if match else 0
            if self._so_far.done < saved_at < progress.step:
                self._keep(state, saved_at, self._batches, None, asked=False)

    def _tell(self, progress: Progress, batch_loss: float | None) -> None:
        self._say(progress.text())
        self._so_far.history.add(
            step=progress.step,
            loss=progress.loss,
            batch_loss=batch_loss,
            seconds=round(time.monotonic() - self._began, 2),
            learning_rate=progress.learning_rate,
        )

    def _keep(self, state: Path, step: int, batches: int, seconds: float | None, asked: bool) -> None:
        """After a restart only what is of later steps is made again, so what was made before comes first; but not where
        the job is about to be killed.
        """
        copies = self._results.notice()
        if not asked:
            wait_for(copies, SECONDS_FOR_RESULTS)
        listed = whole(copies)
        kept = self._so_far.store.keep(state, step, self.total, batches, listed)
        self._kept = kept.step
        if self.best:
            drop_all_but(self.best)
        self._unlisted = {name: copy for name, copy in copies.items() if name not in listed}
        self._list_results()
        self._results.drop_removed()
        self._say(f"checkpoint step={kept.step}" + (f" seconds={seconds:.2f}" if seconds is not None else ""))

    def _list_results(self) -> None:
        """With the newest state, those that have become whole since. Raises OSError where one could not be copied."""
        done = {name: copy for name, copy in self._unlisted.items() if copy.sha256.done()}
        if not done:
            return
        self._unlisted = {name: copy for name, copy in self._unlisted.items() if name not in done}
        if results := whole(done):
            self._so_far.store.add_results(results)
        for copy in done.values():
            copy.sha256.result()
