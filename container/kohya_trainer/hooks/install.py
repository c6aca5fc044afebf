"""Puts this package into Kohya's training loop from inside its process, before the trainer's script runs.

The trainer's modules are imported and a few of their functions wrapped (sd-scripts 2e0fcc5). The loop's own variables
are read at two places: where a batch begins, and where it ends and the trainer hands the loss to its LossRecorder.
"""

import copy
import importlib
import sys
from functools import wraps
from pathlib import Path
from typing import Any

from kohya_trainer.hooks.data_order import keep_order
from kohya_trainer.hooks.image_sizes import measure_as_decoded
from kohya_trainer.hooks.loop_follower import LoopFollower, before_each_batch
from kohya_trainer.hooks.pictures import leave_out_what_does_not_fit
from kohya_trainer.hooks.processes import loaded_torch
from kohya_trainer.hooks.random_states import count_batches_anew, log_without_drawing
from kohya_trainer.kept_latents import draw_latents_apart, keep_latents
from kohya_trainer.orders import Orders


def install_hooks(orders: Orders) -> None:
    """Losses and states are told and saved, samples and models get the run's steps, the data keep order and size."""
    train_util: Any = importlib.import_module("library.train_util")
    follower = LoopFollower(orders)
    _follow_loop(train_util, follower)
    _number_by_the_run(train_util, follower)
    torch = loaded_torch()
    if orders.latents:
        strategy_sd = importlib.import_module("library.strategy_sd")
        keep_latents(strategy_sd, Path(orders.latents), orders.contents)
        if torch:
            draw_latents_apart(train_util, torch)
    if torch:
        keep_order(train_util, torch)
        measure_as_decoded(train_util)
        leave_out_what_does_not_fit(train_util, torch)
        count_batches_anew(importlib.import_module("accelerate.accelerator"))
        log_without_drawing(importlib.import_module("rich.style"))
        _warm_captions_up_by_the_run(train_util, follower)


def _follow_loop(train_util: Any, follower: LoopFollower) -> None:
    recorder, prepare = train_util.LossRecorder.add, train_util.prepare_accelerator

    @wraps(recorder)
    def recorded(self: Any, **batch: Any) -> None:
        recorder(self, **batch)
        follower.after_batch(self, sys._getframe(1).f_locals, float(batch["loss"]))

    @wraps(prepare)
    def prepared(args: Any) -> Any:
        accelerator = prepare(args)
        before_each_batch(accelerator, follower.before_batch)
        return accelerator

    train_util.LossRecorder.add = recorded
    train_util.prepare_accelerator = prepared


def _number_by_the_run(train_util: Any, follower: LoopFollower) -> None:
    """The trainer names models in between, and samples, by its counter, and finds by it the models that go."""
    name, draw = train_util.get_step_ckpt_name, train_util.sample_images_common
    older = train_util.get_remove_step_no

    @wraps(name)
    def named(args: Any, extension: str, step: int) -> Any:
        return name(args, extension, follower.step_of_run(step))

    @wraps(older)
    def removed(args: Any, step: int) -> int | None:
        found = older(follower.intervals.of_the_run(args), follower.step_of_run(step))
        return None if found is None else follower.counter_of(found)

    @wraps(draw)
    def drawn(
        pipe: Any, accelerator: Any, args: Any, epoch: Any, steps: int, *rest: Any, **more: Any
    ) -> None:
        def draw_after(step: int) -> None:
            at_once = copy.copy(args)
            at_once.sample_every_n_epochs, at_once.sample_every_n_steps = None, 1
            at_once.sample_at_first = True
            draw(pipe, accelerator, at_once, None, step, *rest, **more)

        follower.sample(args, epoch, steps, draw_after)

    train_util.get_step_ckpt_name = named
    train_util.get_remove_step_no = removed
    train_util.sample_images_common = drawn


def _warm_captions_up_by_the_run(train_util: Any, follower: LoopFollower) -> None:
    """token_warmup_step is counted by what the dataset is told."""
    tell = train_util.BaseDataset.set_current_step

    @wraps(tell)
    def told(self: Any, step: int) -> None:
        tell(self, follower.step_of_run(step))

    train_util.BaseDataset.set_current_step = told
