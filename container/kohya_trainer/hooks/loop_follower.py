"""Follows Kohya's training loop, a batch at a time: exact losses, states when they are due or asked for, samples at the
run's own steps, the best validation kept. `loop` holds the loop's own variables (train_network.py, sd-scripts 2e0fcc5).
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from kohya_trainer.hooks.processes import loaded_torch, means
from kohya_trainer.hooks.random_states import restore_random_state
from kohya_trainer.hooks.states import StateSaver
from kohya_trainer.orders import Orders
from kohya_trainer.trainer_events import tell

GIB = float(2**30)


class LoopFollower:
    """One launch of the trainer, step by step."""

    def __init__(self, orders: Orders) -> None:
        self._orders, self._states = orders, StateSaver(orders)
        self._step = orders.done
        self._losses: list[float] = []
        self._files: list[str] = []
        self._finite = True
        self._step_seconds = 0.0
        self._step_began = time.monotonic()
        self._drawn_at = -1
        self._best, self._waited = orders.best_loss, orders.waited

    def begin(self, args: Any, accelerator: Any) -> None:
        """The accelerator is there; nothing is loaded yet."""
        orders = self._orders
        if not orders.resume:
            return

        def go_on() -> None:
            if orders.exact and orders.total:
                # The trainer counts from the broken epoch's start, and must end with the run's last step.
                args.max_train_steps = orders.counter_start + orders.total - orders.done
            if torch := loaded_torch():
                index = int(accelerator.process_index)
                restore_random_state(torch, Path(str(orders.resume)), index, orders.done)

        before_first_batch(accelerator, go_on)

    def step_of_run(self, counter: int) -> int:
        """The trainer's counter begins anew with each launch."""
        return self._orders.done + counter - self._orders.counter_start

    def after_batch(self, recorder: Any, loop: Mapping[str, Any], loss: float) -> None:
        """`recorder` tells a training batch from one of a validation."""
        if recorder is loop["loss_recorder"]:
            self._trained(loop, loss)
        elif loop["val_timesteps_step"] + 1 == loop["validation_total_steps"]:
            self._validated(float(recorder.moving_average), loop)

    def sample_step(self, args: Any, epoch: int | None, steps: int) -> int | None:
        """The run's own step, if samples are due at this call of the trainer's; at the end they always are."""
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
            due = step == orders.total or (every is not None and epoch % every == 0)
        if not due or step == self._drawn_at:
            return None
        self._drawn_at = step
        return step

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
        asked = self._states.is_asked()
        # The main process's clock decides when a state is due, and any host may be the one that is interrupted.
        due = accelerator.is_main_process and self._states.is_due(self._step, self._step_seconds)
        told = [sum(losses) / len(losses), not finite, asked, due, len(files)]
        loss, broken, anybody_asked, is_due, images = means(accelerator, [float(number) for number in told])
        self._finite = self._finite and not broken
        if accelerator.is_main_process:
            tell(
                "step",
                step=self._step,
                loss=loss,
                learning_rate=_learning_rate(loop["optimizer"]),
                seconds=seconds,
                images=round(images * accelerator.num_processes),
                files=files,
                gpu_gib=_gpu_gib(),
            )
        worth_saving = self._finite and (self._orders.total is None or self._step < self._orders.total)
        if worth_saving and (is_due or anybody_asked):
            self._states.save(self._step, loop, asked=bool(anybody_asked))
        self._step_began = time.monotonic()

    def _validated(self, loss: float, loop: Mapping[str, Any]) -> None:
        """The best weights are written by the trainer's own function, with its metadata. Each process has validated a
        share, and all of them end together.
        """
        accelerator = loop["accelerator"]
        (loss,) = means(accelerator, [loss])
        better = math.isfinite(loss) and (self._best is None or loss < self._best)
        self._best, self._waited = (loss, 0) if better else (self._best, self._waited + 1)
        patience = self._orders.patience
        stop = patience is not None and self._waited >= patience and self._step != self._orders.total
        # Of several hosts the first one alone knows the validations before a restart.
        (stops,) = means(accelerator, [float(stop and accelerator.is_main_process)])
        if accelerator.is_main_process:
            model = f"{loop['args'].output_name}-best.safetensors" if better else ""
            if model:
                network = accelerator.unwrap_model(loop["network"])
                loop["save_model"](model, network, self._step, loop["epoch"])
            tell("validation", step=self._step, loss=loss, model=model, waited=self._waited, stop=stop)
        self._step_began = time.monotonic()
        if stops:
            # The loop has no way out of its own that would not train a step in each epoch left.
            raise SystemExit(0)


def before_first_batch(accelerator: Any, act: Callable[[], None]) -> None:
    """Calls `act` once, when the loader has begun and the first batch is about to be used."""
    accumulate = accelerator.accumulate

    def once(*models: Any) -> AbstractContextManager[Any]:
        accelerator.accumulate = accumulate
        act()
        context: AbstractContextManager[Any] = accumulate(*models)
        return context

    accelerator.accumulate = once


def _learning_rate(optimizer: Any) -> float | None:
    """Of the next step, of the last group, which is the U-Net's; adaptive optimizers multiply it by their `d`."""
    group = optimizer.param_groups[-1]
    return None if group.get("lr") is None else float(group["lr"]) * float(group.get("d", 1.0))


def _gpu_gib() -> float | None:
    """The most GPU memory that torch has held, in GiB."""
    torch = loaded_torch()
    if torch is None or not torch.cuda.is_available():
        return None
    return float(torch.cuda.max_memory_reserved()) / GIB
