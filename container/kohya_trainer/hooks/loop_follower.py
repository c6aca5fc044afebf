"""Follows Kohya's training loop, a batch at a time: exact losses, states when they are due or asked for, samples,
models and validations at the run's own steps, the best validation kept. `loop` holds the loop's own variables
(train_network.py, sd-scripts 2e0fcc5).
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from kohya_trainer.failure import FILES_NAMED
from kohya_trainer.hooks.intervals import Intervals
from kohya_trainer.hooks.processes import gathered, loaded_torch, means
from kohya_trainer.hooks.random_states import restore_random_state
from kohya_trainer.hooks.states import StateSaver
from kohya_trainer.orders import Orders
from kohya_trainer.trainer_events import tell

GIB = float(2**30)


class LoopFollower:
    """One launch of the trainer, step by step. `intervals` are there from the first batch on."""

    intervals: Intervals

    def __init__(self, orders: Orders) -> None:
        self._orders, self._states = orders, StateSaver(orders)
        self._step = orders.done
        self._total = 0
        self._losses: list[float] = []
        self._files: list[str] = []
        self._finite = True
        self._step_seconds = 0.0
        self._step_began = time.monotonic()
        self._begun = False
        self._drawn_at = self._validated_at = -1
        self._draw: Callable[[int], None] = lambda step: None
        self._validation: list[float] = []
        self._best, self._waited = orders.best_loss, orders.waited

    def before_batch(self, loop: Mapping[str, Any]) -> None:
        """The batch is loaded, and all that belongs to the steps before has been made, at an epoch's end its
        validation, samples and model, too. What is made after a state is saved and before this, no restart makes.
        """
        if not self._begun:
            self._begun = True
            self._begin(loop)
        elif loop["accelerator"].sync_gradients:
            self._save_if_due(loop)
        self.intervals.announce(loop["args"], self._step + 1)

    def step_of_run(self, counter: int) -> int:
        """The trainer's counter begins anew with each launch."""
        return self._orders.done + counter - self._orders.counter_start

    def counter_of(self, step: int) -> int:
        """What the trainer counts at the run's `step`; below 0 long before this launch."""
        return step - self._orders.done + self._orders.counter_start

    def after_batch(self, recorder: Any, loop: Mapping[str, Any], loss: float) -> None:
        """`recorder` tells a training batch from one of a validation."""
        if recorder is loop["loss_recorder"]:
            self._trained(loop, loss)
            return
        # The recorder's own average mixes the validations of the first epoch.
        self._validation.append(loss)
        if loop["val_timesteps_step"] + 1 == loop["validation_total_steps"]:
            losses, self._validation = self._validation, []
            self._validated(sum(losses) / len(losses), loop)

    def sample(self, args: Any, epoch: int | None, steps: int, draw: Callable[[int], None]) -> None:
        """The trainer calls at every step and epoch; drawn is when it is due by the run's own steps, which `draw` is
        given. At the end it always is.
        """
        self._draw = draw
        step = self._sample_step(args, epoch, steps)
        if step is not None:
            draw(step)

    def _sample_step(self, args: Any, epoch: int | None, steps: int) -> int | None:
        orders = self._orders
        if not orders.samples:
            return None
        if steps == 0 and not epoch:
            return 0 if args.sample_at_first and not orders.resume else None
        step = self.step_of_run(steps)
        if epoch is None:
            due = orders.sample_every is not None and step % orders.sample_every == 0
        else:
            every = args.sample_every_n_epochs
            due = step == self._total or (every is not None and epoch % every == 0)
        if not due or step == self._drawn_at:
            return None
        self._drawn_at = step
        return step

    def _begin(self, loop: Mapping[str, Any]) -> None:
        orders, args, accelerator = self._orders, loop["args"], loop["accelerator"]
        self.intervals = Intervals(args)
        self._number_models(accelerator.unwrap_model(loop["network"]))
        # Of the whole run, also after a restart; the trainer computes it from epochs, processes and batches.
        total = self._total = int(args.max_train_steps)
        if not orders.resume:
            return
        if orders.exact:
            # The trainer counts from the broken epoch's start, and must end with the run's last step.
            args.max_train_steps = orders.counter_start + total - orders.done
        if torch := loaded_torch():
            restore_random_state(torch, Path(orders.resume), int(accelerator.process_index), orders.done)

    def _number_models(self, network: Any) -> None:
        """In the metadata of what the trainer saves stands its counter."""
        write = network.save_weights

        def numbered(file: str, dtype: Any, metadata: Mapping[str, str]) -> None:
            told = dict(metadata)
            if "ss_steps" in told:
                told["ss_steps"] = str(self.step_of_run(int(told["ss_steps"])))
            write(file, dtype, told)

        network.save_weights = numbered

    def _trained(self, loop: Mapping[str, Any], loss: float) -> None:
        self._losses.append(loss)
        self._files += [Path(key).name for key in loop["batch"].get("image_keys", ())]
        accelerator = loop["accelerator"]
        if not accelerator.sync_gradients:
            return
        now = time.monotonic()
        seconds, self._step_began = now - self._step_began, now
        # The first step of a launch includes what the GPU compiles and allocates.
        self._step_seconds = 0.9 * self._step_seconds + 0.1 * seconds if self._step_seconds else seconds
        self._step = self.step_of_run(loop["global_step"])
        losses, self._losses = self._losses, []
        files, self._files = self._files, []
        finite = all(math.isfinite(loss) for loss in losses)
        loss, broken, images = means(
            accelerator, [sum(losses) / len(losses), float(not finite), float(len(files))]
        )
        self._finite = self._finite and not broken
        if broken:
            # Of whichever process: the main one's own may be whole.
            files = [name for each in gathered(accelerator, [] if finite else files) for name in each]
        if accelerator.is_main_process:
            tell(
                "step",
                step=self._step,
                total=self._total,
                loss=loss,
                learning_rate=_learning_rate(loop["optimizer"], loop.get("lr_descriptions")),
                seconds=seconds,
                images=round(images * accelerator.num_processes),
                # Not all of them: longer than a pipe takes in one piece, a line could be torn by another process.
                files=files[:FILES_NAMED],
                more_files=max(0, len(files) - FILES_NAMED),
                gpu_gib=_gpu_gib(),
            )

    def _save_if_due(self, loop: Mapping[str, Any]) -> None:
        accelerator, began = loop["accelerator"], time.monotonic()
        # The main process's clock decides when a state is due, and any host may be the one that is interrupted.
        due = accelerator.is_main_process and self._states.is_due(self._step, self._step_seconds)
        is_due, asked = means(accelerator, [float(due), float(self._states.is_asked())])
        if self._finite and (is_due or asked):
            self._states.save(self._step, loop, asked=bool(asked))
            self._step_began += time.monotonic() - began

    def _validated(self, loss: float, loop: Mapping[str, Any]) -> None:
        """The best weights are written by the trainer's own function, with its metadata. Each process has validated a
        share, and all of them end together. At an epoch's last step the trainer may validate twice.
        """
        if self._step == self._validated_at:
            return
        self._validated_at = self._step
        accelerator = loop["accelerator"]
        (loss,) = means(accelerator, [loss])
        finite = math.isfinite(loss)
        # The watch ends a training whose validation is no number; until then no state of these weights is kept.
        self._finite = self._finite and finite
        better = finite and (self._best is None or loss < self._best)
        self._best, self._waited = (loss, 0) if better else (self._best, self._waited + 1)
        patience = self._orders.patience
        stop = finite and patience is not None and self._waited >= patience and self._step != self._total
        # Of several hosts the first one alone knows the validations before a restart.
        (stops,) = means(accelerator, [float(stop and accelerator.is_main_process)])
        if stops and self._orders.samples and self._drawn_at != self._step:
            # Before the end is told, with which the trainer is ended.
            self._draw(self._step)
        if accelerator.is_main_process:
            # A name of its own: the watch may still be copying the one before.
            model = f"best/{self._step:08d}.safetensors" if better else ""
            if model:
                Path(loop["args"].output_dir, model).parent.mkdir(exist_ok=True)
                network = accelerator.unwrap_model(loop["network"])
                with _timesteps_of_training(loop):
                    loop["save_model"](model, network, loop["global_step"], loop["epoch"])
            tell("validation", step=self._step, loss=loss, model=model, waited=self._waited, stop=stop)
        self._step_began = time.monotonic()
        if stops:
            # The loop has no way out of its own that would not train a step in each epoch left.
            raise SystemExit(0)


def before_each_batch(accelerator: Any, act: Callable[[Mapping[str, Any]], None]) -> None:
    """Calls `act` with the loop's variables, when a batch is loaded and about to be used."""
    accumulate = accelerator.accumulate

    def begun(*models: Any) -> AbstractContextManager[Any]:
        act(sys._getframe(1).f_locals)
        context: AbstractContextManager[Any] = accumulate(*models)
        return context

    accelerator.accumulate = begun


@contextmanager
def _timesteps_of_training(loop: Mapping[str, Any]) -> Iterator[None]:
    """While it validates, the trainer's options hold the timestep that is validated with. A model that is saved then
    would name it as those that it was trained with, and so would each one after it, whose metadata are the same dict.
    """
    args = loop["args"]
    validated = {name: getattr(args, name) for name in _TIMESTEPS}
    for name in _TIMESTEPS:
        setattr(args, name, loop[f"original_args_{name}"])
    try:
        yield
    finally:
        for name, value in validated.items():
            setattr(args, name, value)


_TIMESTEPS = ("min_timestep", "max_timestep")


def _learning_rate(optimizer: Any, descriptions: Sequence[str] | None) -> float | None:
    """Of the next step, the U-Net's where it learns; adaptive optimizers multiply it by their `d`.

    Args:
        descriptions: of the optimizer's groups, "textencoder" before "unet" or a "unet_block<n>" each. LoRA+ trains
            those of "plus" faster, and of blocks with weights of their own the fastest is told. None where the network
            gives none: its last group is the U-Net's.
    """
    groups = optimizer.param_groups
    if descriptions and len(descriptions) == len(groups):
        own = {name: group for name, group in zip(descriptions, groups, strict=True) if name[-5:] != " plus"}
        groups = (
            [group for name, group in own.items() if name.startswith("unet")] or list(own.values()) or groups
        )
    else:
        groups = groups[-1:]
    told = [
        float(group["lr"]) * float(group.get("d", 1.0)) for group in groups if group.get("lr") is not None
    ]
    return max(told, default=None)


def _gpu_gib() -> float | None:
    """The most GPU memory that torch has held, in GiB."""
    torch = loaded_torch()
    if torch is None or not torch.cuda.is_available():
        return None
    return float(torch.cuda.max_memory_reserved()) / GIB
