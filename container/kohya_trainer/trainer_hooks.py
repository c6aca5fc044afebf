"""Follows Kohya's training loop from inside its process: exact losses, states when they are due or asked for, samples
numbered by the run's own steps, the best validation kept.

Everything is seen at one place, the end of a batch, where the trainer hands the loss to its LossRecorder: there the
loop's own variables are read (train_network.py of sd-scripts 2e0fcc5; the names of LOOP). It runs inside the trainer,
so it imports nothing that the trainer does not have.
"""

import copy
import importlib
import math
import shutil
import sys
import time
from collections.abc import Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from kohya_trainer import data_order
from kohya_trainer.kept_latents import keep_latents
from kohya_trainer.orders import Orders
from kohya_trainer.save_policy import seconds_between_saves
from kohya_trainer.trainer_events import encode

# What is read of the trainer's loop.
LOOP = (
    "accelerator",
    "args",
    "batch",
    "epoch",
    "global_step",
    "loss_recorder",
    "network",
    "optimizer",
    "save_model",
)
GIB = float(2**30)


def install(orders: Orders) -> None:
    """Before the trainer's script runs: its modules are imported and a few of their functions wrapped."""
    train_util: Any = importlib.import_module("library.train_util")
    follower = LoopFollower(orders)
    recorder, prepare, name, draw = (
        train_util.LossRecorder.add,
        train_util.prepare_accelerator,
        train_util.get_step_ckpt_name,
        train_util.sample_images_common,
    )

    @wraps(recorder)
    def recorded(self: Any, **batch: Any) -> None:
        recorder(self, **batch)
        follower.after_batch(self, sys._getframe(1).f_locals, float(batch["loss"]))

    @wraps(prepare)
    def prepared(args: Any) -> Any:
        accelerator = prepare(args)
        follower.begin(args, accelerator)
        return accelerator

    @wraps(name)
    def named(args: Any, extension: str, step: int) -> Any:
        # Models in between are named by the trainer's counter.
        return name(args, extension, follower.step_of_run(step))

    @wraps(draw)
    def drawn(pipe: Any, accelerator: Any, args: Any, epoch: Any, steps: int, *rest: Any, **more: Any) -> Any:
        due = follower.sample_step(args, epoch, steps)
        if due is None:
            return None
        at_once = copy.copy(args)
        at_once.sample_every_n_epochs, at_once.sample_every_n_steps = None, 1
        at_once.sample_at_first = True
        return draw(pipe, accelerator, at_once, None, due, *rest, **more)

    if orders.latents:
        strategy_sd = importlib.import_module("library.strategy_sd")
        keep_latents(strategy_sd, Path(orders.latents), orders.contents)
    train_util.LossRecorder.add = recorded
    train_util.prepare_accelerator = prepared
    train_util.get_step_ckpt_name = named
    train_util.sample_images_common = drawn
    if torch := _torch():
        data_order.keep_order(train_util, torch)


class LoopFollower:
    """One launch of the trainer, step by step."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._step = orders.done
        self._losses: list[float] = []
        self._files: list[str] = []
        self._finite = True
        self._asked = False
        self._save_seconds: float | None = None
        self._step_seconds = 0.0
        self._step_began = self._saved_at = time.monotonic()
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
            if torch := _torch():
                index = int(accelerator.process_index)
                data_order.restore_random_state(torch, Path(str(orders.resume)), index, orders.done)

        data_order.before_first_batch(accelerator, go_on)

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
        asked = not self._asked and Path(self._orders.save_now).exists()
        # The main process's clock decides when a state is due, and any host may be the one that is interrupted.
        due = accelerator.is_main_process and self._is_due()
        told = [sum(losses) / len(losses), not finite, asked, due, len(files)]
        loss, broken, anybody_asked, is_due, images = _means(accelerator, [float(number) for number in told])
        self._finite = self._finite and not broken
        if accelerator.is_main_process:
            _tell(
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
            self._save(loop, asked=bool(anybody_asked))
        self._step_began = time.monotonic()

    def _is_due(self) -> bool:
        """By the orders' steps, or by the clock."""
        if every := self._orders.save_every:
            return self._step % every == 0
        pause = seconds_between_saves(self._save_seconds, self._step_seconds)
        return time.monotonic() - self._saved_at >= pause

    def _save(self, loop: Mapping[str, Any], asked: bool) -> None:
        """All processes at the same step: the main one writes, and is told the random numbers of the others."""
        accelerator = loop["accelerator"]
        self._asked = self._asked or asked
        # With accumulation the trainer can go on only from the end of an epoch.
        accumulates = int(loop["args"].gradient_accumulation_steps) > 1
        if accumulates and self._step % loop["num_update_steps_per_epoch"] != 0:
            if asked and accelerator.is_main_process:
                _tell("no-state", step=self._step)
            return
        began = time.monotonic()
        torch = _torch()
        numbers = data_order.gathered_random_states(torch, accelerator) if torch else []
        if not accelerator.is_main_process:
            return
        folder = Path(self._orders.states) / f"step-{self._step:08d}"
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        accelerator.save_state(str(partial))
        data_order.write_random_states(torch, partial, numbers)
        partial.rename(folder)
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - began
        _tell(
            "state",
            step=self._step,
            path=str(folder),
            seconds=self._save_seconds,
            batches=len(loop["train_dataloader"]),
            asked=asked,
        )

    def _validated(self, loss: float, loop: Mapping[str, Any]) -> None:
        """The best weights are written by the trainer's own function, with its metadata. Each process has validated a
        share, and all of them end together.
        """
        accelerator = loop["accelerator"]
        (loss,) = _means(accelerator, [loss])
        better = math.isfinite(loss) and (self._best is None or loss < self._best)
        self._best, self._waited = (loss, 0) if better else (self._best, self._waited + 1)
        patience = self._orders.patience
        stop = patience is not None and self._waited >= patience and self._step != self._orders.total
        # Of several hosts the first one alone knows the validations before a restart.
        (stops,) = _means(accelerator, [float(stop and accelerator.is_main_process)])
        if accelerator.is_main_process:
            model = f"{loop['args'].output_name}-best.safetensors" if better else ""
            if model:
                network = accelerator.unwrap_model(loop["network"])
                loop["save_model"](model, network, self._step, loop["epoch"])
            _tell("validation", step=self._step, loss=loss, model=model, waited=self._waited, stop=stop)
        self._step_began = time.monotonic()
        if stops:
            # The loop has no way out of its own that would not train a step in each epoch left.
            raise SystemExit(0)


def _means(accelerator: Any, numbers: list[float]) -> list[float]:
    """Over all processes, each of which must come here at the same step."""
    if accelerator.num_processes == 1:
        return numbers
    torch = _torch()
    values = torch.tensor(numbers, dtype=torch.float32, device=accelerator.device) if torch else numbers
    return [float(value) for value in accelerator.reduce(values, reduction="mean")]


def _tell(event: str, **facts: Any) -> None:
    """On a line of its own: the progress bar beside it ends without a newline."""
    print(f"\n{encode(event, **facts)}", flush=True)


def _learning_rate(optimizer: Any) -> float | None:
    """Of the next step, of the last group, which is the U-Net's; adaptive optimizers multiply it by their `d`."""
    group = optimizer.param_groups[-1]
    return None if group.get("lr") is None else float(group["lr"]) * float(group.get("d", 1.0))


def _gpu_gib() -> float | None:
    """The most GPU memory that torch has held, in GiB."""
    torch = _torch()
    if torch is None or not torch.cuda.is_available():
        return None
    return float(torch.cuda.max_memory_reserved()) / GIB


def _torch() -> Any:
    """None where the trainer has not imported it: the stand-in for Kohya has none."""
    return sys.modules.get("torch")
