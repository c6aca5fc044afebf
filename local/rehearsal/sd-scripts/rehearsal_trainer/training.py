"""The training loop, with the order of steps, log lines and counting of Kohya's train_network.py (sd-
scripts 2e0fcc5).
"""

import math
import os
import random
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from library import train_util

from rehearsal_trainer import schedule
from rehearsal_trainer.dataset import Dataset, TrainImage
from rehearsal_trainer.log import info
from rehearsal_trainer.lora_file import describe, save_lora
from rehearsal_trainer.network import AdamW, Array, Network, clip, time_features, tokens_of
from rehearsal_trainer.progress_bar import ProgressBar
from rehearsal_trainer.samples import draw_samples
from rehearsal_trainer.state import load_state, remove_old_state, save_state

NO_DATA = (
    "No data found. Please verify arguments (train_data_dir must be the parent of folders with images) / "
    "画像がありません。引数指定を確認してください"
)
MOST_TOKENS_OF_AN_IMAGE = 256
_Item = TypeVar("_Item")


def train(args: Namespace) -> int:
    """The exit code, which is 0 also when there is no data: Kohya's own."""
    began = time.time()
    args.seed = int(args.seed) if args.seed is not None else random.randint(0, 2**32)
    args.output_name = args.output_name or "last"
    dataset = Dataset(args)
    if not dataset.images:
        info(NO_DATA, "ERROR")
        return 0
    info("rehearsal: no base model is loaded, a small stand-in network is trained on the CPU", "WARNING")
    schedule.announce(args)
    accelerator = train_util.prepare_accelerator(args)
    accumulation = int(args.gradient_accumulation_steps)
    batches = math.ceil(dataset.batches / accelerator.num_processes)
    steps_per_epoch = math.ceil(batches / accumulation)
    if args.max_train_epochs is not None:
        args.max_train_steps = int(args.max_train_epochs) * steps_per_epoch
        info(f"override steps. steps for {args.max_train_epochs} epochs is: {args.max_train_steps}")
    rank = int(args.network_dim or 4)
    network = Network(rank, float(args.network_alpha or rank), args.seed)
    optimizer = AdamW(network.parameters())
    rng = np.random.default_rng(args.seed)
    known = load_state(Path(args.resume), network, optimizer, rng) if args.resume else None
    epochs = math.ceil(args.max_train_steps / steps_per_epoch)
    if args.save_n_epoch_ratio:
        args.save_every_n_epochs = math.floor(epochs / args.save_n_epoch_ratio) or 1
    _announce(accelerator.print, args, dataset, batches, epochs)
    metadata = describe(args, dataset, epochs, began)
    loop = _Loop(args, accelerator, dataset, network, optimizer, rng, metadata)
    steps = loop.run(epochs, *_start(args, batches, known))
    if not accelerator.is_main_process:
        return 0
    if args.save_state or args.save_state_on_train_end:
        save_state(
            Path(args.output_dir) / f"{args.output_name}-state", network, optimizer, rng, epochs, steps
        )
    loop.save_model(f"{args.output_name}.safetensors", network, steps, epochs)
    info("model saved.")
    return 0


def _announce(
    say: Callable[[str], None], args: Namespace, dataset: Dataset, batches: int, epochs: int
) -> None:
    say("running training / 学習開始")
    say(f"  num train images * repeats / 学習画像の数×繰り返し回数: {dataset.repeated}")
    say(f"  num validation images * repeats / 学習画像の数×繰り返し回数: {len(dataset.validation)}")
    regularization = sum(image.repeats for image in dataset.images if image.is_reg)
    say(f"  num reg images / 正則化画像の数: {regularization}")
    say(f"  num batches per epoch / 1epochのバッチ数: {batches}")
    say(f"  num epochs / epoch数: {epochs}")
    say(f"  batch size per device / バッチサイズ: {args.train_batch_size}")
    say(f"  gradient accumulation steps / 勾配を合計するステップ数 = {args.gradient_accumulation_steps}")
    say(f"  total optimization steps / 学習ステップ数: {args.max_train_steps}")


def _start(args: Namespace, batches: int, known: int | None) -> tuple[int, int]:
    """First epoch, and batches to skip in it: Kohya's arithmetic and flaws, which a caller must live with."""
    initial = 0
    steps_per_epoch = math.ceil(batches / int(args.gradient_accumulation_steps))
    if args.initial_epoch is not None or args.initial_step is not None:
        initial = (
            int(args.initial_step)
            if args.initial_step is not None
            else (int(args.initial_epoch) - 1) * steps_per_epoch
        )
    elif known is not None:
        initial = known
    if initial <= 0:
        return 0, 0
    assert args.max_train_steps > initial, "max_train_steps should be greater than initial step"
    if not args.skip_until_initial_step:
        return initial // steps_per_epoch, 0
    info(f"skipping {initial} steps / {initial}ステップをスキップします")
    initial *= int(args.gradient_accumulation_steps)
    epoch = initial // steps_per_epoch
    return epoch, initial - epoch * batches


VALIDATED_TIMESTEP = 800  # the last of Kohya's


class _Loop:
    """One launch's steps. The variables of run() have the names of Kohya's loop, which the hooks read."""

    def __init__(
        self,
        args: Namespace,
        accelerator: train_util.Accelerator,
        dataset: Dataset,
        network: Network,
        optimizer: AdamW,
        rng: np.random.Generator,
        metadata: dict[str, Any],
    ) -> None:
        self._args, self._dataset, self._network, self._optimizer, self._rng = (
            args,
            dataset,
            network,
            optimizer,
            rng,
        )
        self._metadata, self._total = metadata, int(args.max_train_steps)
        self._pending: dict[str, Array] = {}
        # Kohya's current_epoch and current_step: the latter is set when a batch begins.
        self._epoch = 0
        self._step_before = 0
        self._accelerator = accelerator
        accelerator.saves = self._save_state

    def run(self, num_train_epochs: int, first_epoch: int, skip: int) -> int:
        """Returns the trainer's own counter at the end."""
        args, network, optimizer, accelerator = self._args, self._network, self._optimizer, self._accelerator
        save_model = self.save_model
        # As slow as a GPU, where a test wants it so, after steps that it does not wait for.
        pause = float(os.environ.get("REHEARSAL_STEP_SECONDS", "0"))
        quick_steps = int(os.environ.get("REHEARSAL_QUICK_STEPS", "0"))
        accumulation = int(args.gradient_accumulation_steps)
        train_dataloader = _share(range(self._dataset.batches), accelerator)
        num_update_steps_per_epoch = math.ceil(len(train_dataloader) / accumulation)
        held_out = _share(self._dataset.validation, accelerator)
        validation_total_steps = len(held_out)
        original_args_min_timestep, original_args_max_timestep = args.min_timestep, args.max_timestep
        loss_recorder = train_util.LossRecorder()
        val_step_loss_recorder, val_epoch_loss_recorder = train_util.LossRecorder(), train_util.LossRecorder()
        global_step = skip
        bar = ProgressBar(int(args.max_train_steps) - skip) if accelerator.is_local_main_process else None
        for epoch in range(first_epoch, num_train_epochs):
            accelerator.print(f"\nepoch {epoch + 1}/{num_train_epochs}\n")
            self._epoch = epoch + 1
            images = _share(self._dataset.epoch(epoch), accelerator)[max(skip, 0) :]
            # Kohya's skipped loader still yields the last skipped batch.
            passed, skip = min(1, max(skip, 0)), 0
            for index, examples in enumerate(images):
                batch = {"image_keys": [str(image.path) for image in examples]}
                self._step_before = global_step
                if global_step >= quick_steps:
                    time.sleep(pause)
                with accelerator.accumulate(network):
                    # accelerate knows it here and not before.
                    accelerator.sync_gradients = (index + 1) % accumulation == 0 or index + 1 == len(images)
                    loss = self._accumulate(examples, accumulation)
                    if accelerator.sync_gradients:
                        self._update()
                if accelerator.sync_gradients:
                    if bar:
                        bar.update()
                    global_step += 1
                    self._sample(None, global_step)
                    self._save_step(global_step, epoch)
                loss_recorder.add(epoch=epoch, step=index + passed, loss=loss)
                if bar:
                    bar.set_loss(loss_recorder.moving_average)
                if accelerator.sync_gradients and _due(global_step, args.validate_every_n_steps):
                    for val_timesteps_step, loss in enumerate(self._validation_losses(held_out)):
                        val_step_loss_recorder.add(epoch=epoch, step=val_timesteps_step, loss=loss)
                    args.min_timestep, args.max_timestep = (
                        original_args_min_timestep,
                        original_args_max_timestep,
                    )
                if global_step >= int(args.max_train_steps):
                    break
            if _due(epoch + 1, args.validate_every_n_epochs or 1):
                for val_timesteps_step, loss in enumerate(self._validation_losses(held_out)):
                    val_epoch_loss_recorder.add(epoch=epoch, step=val_timesteps_step, loss=loss)
                args.min_timestep, args.max_timestep = original_args_min_timestep, original_args_max_timestep
            if epoch + 1 < num_train_epochs:
                self._save_epoch(epoch + 1, global_step)
            self._sample(epoch + 1, global_step)
        if bar:
            bar.close()
        # Read by the hooks alone.
        del batch, optimizer, save_model, train_dataloader, num_update_steps_per_epoch, validation_total_steps
        return global_step

    def _accumulate(self, batch: list[TrainImage], accumulation: int) -> float:
        loss, gradients = self._network.loss_and_gradients(*_examples(batch, self._rng))
        weight = sum(image.weight for image in batch) / len(batch)
        for name, gradient in gradients.items():
            share = gradient * np.float32(weight / accumulation)
            self._pending[name] = self._pending[name] + share if name in self._pending else share
        return loss * weight

    def _validation_losses(self, held_out: Sequence[TrainImage]) -> Iterator[float]:
        for index, image in enumerate(held_out):
            # As Kohya has it, and its models' metadata tell of it.
            self._args.min_timestep = self._args.max_timestep = VALIDATED_TIMESTEP
            # The same noise every time, as Kohya's validation_seed makes it.
            rng = np.random.default_rng(self._args.seed + index)
            yield self._network.loss_and_gradients(*_examples([image], rng))[0]

    def _update(self) -> None:
        means = self._accelerator.reduce(list(self._pending.values()), reduction="mean")
        self._pending = dict(zip(self._pending, means, strict=True))
        clip(self._pending, float(self._args.max_grad_norm))
        self._optimizer.step(self._pending, schedule.rate(self._args, self._optimizer.steps, self._total))
        self._pending = {}

    def _sample(self, epoch: int | None, step: int) -> None:
        def draw(epoch: int | None, step: int) -> None:
            if self._accelerator.is_main_process:
                draw_samples(self._args, self._network, epoch, step)

        train_util.sample_images_common(draw, self._accelerator, self._args, epoch, step)

    def save_model(self, name: str, network: Network, steps: int, epoch: int) -> None:
        self._metadata |= {"ss_steps": steps, "ss_epoch": epoch, "ss_training_finished_at": time.time()}
        low, high = self._args.min_timestep, self._args.max_timestep
        if low is not None or high is not None:
            timesteps = f"{0 if low is None else low},{1000 if high is None else high}"
            self._metadata["modelspec.timestep_range"] = timesteps
        save_lora(Path(self._args.output_dir) / name, network, self._metadata)

    def _save_state(self, folder: Path) -> None:
        save_state(folder, self._network, self._optimizer, self._rng, self._epoch, self._step_before + 1)

    def _save_step(self, step: int, epoch: int) -> None:
        args = self._args
        if not self._accelerator.is_main_process or not _due(step, args.save_every_n_steps):
            return
        name = train_util.get_step_ckpt_name(args, ".safetensors", step)
        self.save_model(name, self._network, step, epoch)
        if args.save_state:
            info(f"saving state at step {step}")
            state = f"{args.output_name}-step{step:08d}-state"
            self._accelerator.save_state(str(Path(args.output_dir) / state))
            remove_old_state(args, step)
        old = train_util.get_remove_step_no(args, step)
        if old is not None:
            self._remove_model(train_util.get_step_ckpt_name(args, ".safetensors", old))

    def _save_epoch(self, epoch: int, step: int) -> None:
        args = self._args
        if not self._accelerator.is_main_process or not _due(epoch, args.save_every_n_epochs):
            return
        self.save_model(
            train_util.get_epoch_ckpt_name(args, ".safetensors", epoch), self._network, step, epoch
        )
        old = train_util.get_remove_epoch_no(args, epoch)
        if old is not None:
            self._remove_model(train_util.get_epoch_ckpt_name(args, ".safetensors", old))

    def _remove_model(self, name: str) -> None:
        (Path(self._args.output_dir) / name).unlink(missing_ok=True)


def _due(count: int, every: int | None) -> bool:
    return every is not None and count % int(every) == 0


def _share(items: Sequence[_Item], accelerator: train_util.Accelerator) -> Sequence[_Item]:
    """Every n-th one for the n-th of the processes; the first ones again where they do not come out even."""
    count = accelerator.num_processes
    length = math.ceil(len(items) / count)
    return [items[(accelerator.process_index + count * index) % len(items)] for index in range(length)]


def _examples(batch: list[TrainImage], rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Noisy tokens, their time and caption, and the noise that is to be found in them."""
    tokens, captions, times = [], [], []
    for image in batch:
        patches = tokens_of(image.latent)
        if len(patches) > MOST_TOKENS_OF_AN_IMAGE:
            patches = patches[rng.choice(len(patches), MOST_TOKENS_OF_AN_IMAGE, replace=False)]
        tokens.append(patches)
        captions.append(np.repeat(image.caption[None, :], len(patches), axis=0))
        times.append(np.full(len(patches), rng.uniform(0.05, 0.95), dtype=np.float32))
    clean, time_of = np.concatenate(tokens), np.concatenate(times)
    noise = rng.standard_normal(clean.shape, dtype=np.float32)
    angle = time_of[:, None] * np.float32(np.pi / 2)
    noisy = np.cos(angle) * clean + np.sin(angle) * noise
    return noisy, np.concatenate([time_features(time_of), np.concatenate(captions)], axis=1), noise
