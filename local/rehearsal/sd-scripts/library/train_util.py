"""Kohya's names at the places where the training container's hooks follow its loop."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rehearsal_trainer.log import plain
from rehearsal_trainer.processes import Processes


class LossRecorder:
    """Kohya's moving average: over one epoch, each step's loss replaced in the next."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._total = 0.0

    def add(self, *, epoch: int, step: int, loss: float) -> None:
        if epoch == 0:
            self._losses.append(loss)
        else:
            # Also the places of batches that a restart passed over: Kohya's zeros, which dilute its average.
            self._losses += [0.0] * (step + 1 - len(self._losses))
            self._total -= self._losses[step]
            self._losses[step] = loss
        self._total += loss

    @property
    def moving_average(self) -> float:
        return self._total / len(self._losses) if self._losses else 0.0


class Accelerator:
    """As much of accelerate's as Kohya's loop uses."""

    def __init__(self) -> None:
        self._processes = Processes()
        self.process_index = self._processes.index
        self.num_processes = self._processes.count
        self.is_main_process = self.process_index == 0
        self.is_local_main_process = self._processes.local_index == 0
        self.sync_gradients = True
        self.saves: Callable[[Path], None] = lambda folder: None

    @contextmanager
    def accumulate(self, model: Any) -> Iterator[None]:
        """Around each batch."""
        yield

    def reduce(self, values: Sequence[Any], reduction: str) -> list[Any]:
        """The mean over all processes, each of which must ask for it."""
        assert reduction == "mean"
        return self._processes.mean(values)

    def print(self, text: str) -> None:
        """Once a host."""
        if self.is_local_main_process:
            plain(text)

    def save_state(self, folder: str) -> None:
        self.saves(Path(folder))

    def unwrap_model(self, model: Any) -> Any:
        return model


def prepare_accelerator(args: Namespace) -> Accelerator:
    return Accelerator()


def get_step_ckpt_name(args: Namespace, ext: str, step_no: int) -> str:
    """Of a model in between."""
    return f"{args.output_name}-step{step_no:08d}{ext}"


def get_epoch_ckpt_name(args: Namespace, ext: str, epoch_no: int) -> str:
    """Of an epoch's model."""
    return f"{args.output_name}-{epoch_no:06d}{ext}"


def get_remove_step_no(args: Namespace, step_no: int) -> int | None:
    """The model in between that goes when that of `step_no` comes; there need not be one."""
    if args.save_last_n_steps is None:
        return None
    old: int = step_no - args.save_last_n_steps - 1
    old -= old % args.save_every_n_steps
    return None if old < 0 else old


def get_remove_epoch_no(args: Namespace, epoch_no: int) -> int | None:
    """The epoch whose model goes when that of `epoch_no` comes."""
    if args.save_last_n_epochs is None:
        return None
    old: int = epoch_no - args.save_every_n_epochs * args.save_last_n_epochs
    return None if old < 0 else old


def sample_images_common(
    draw: Callable[[int | None, int], None],
    accelerator: Accelerator,
    args: Namespace,
    epoch: int | None,
    steps: int,
) -> None:
    """Draws when `steps` or `epoch` is due; exactly one of the two is given, as by Kohya's two calls."""
    if steps == 0:
        if not args.sample_at_first:
            return
    elif args.sample_every_n_epochs:  # it wins over steps
        if epoch is None or epoch % int(args.sample_every_n_epochs) != 0:
            return
    elif epoch is not None or not args.sample_every_n_steps or steps % int(args.sample_every_n_steps) != 0:
        return
    draw(epoch, steps)
