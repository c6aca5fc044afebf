"""The training loop, with the order of steps, log lines and counting of Kohya's train_network.py (sd-
scripts 2e0fcc5).
"""

import math
import random
import time
from argparse import Namespace
from pathlib import Path

import numpy as np

from rehearsal_trainer import schedule
from rehearsal_trainer.dataset import Dataset, TrainImage
from rehearsal_trainer.log import info, plain
from rehearsal_trainer.lora_file import describe, save_lora
from rehearsal_trainer.network import AdamW, Array, Network, clip, time_features, tokens_of
from rehearsal_trainer.progress_bar import ProgressBar
from rehearsal_trainer.samples import sample
from rehearsal_trainer.state import load_state, remove_old_state, save_state

NO_DATA = (
    "No data found. Please verify arguments (train_data_dir must be the parent of folders with images) / "
    "画像がありません。引数指定を確認してください"
)
MOST_TOKENS_OF_AN_IMAGE = 256


class LossRecorder:
    """Kohya's moving average: over one epoch, each step's loss replaced in the next."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._total = 0.0

    def add(self, epoch: int, step: int, loss: float) -> float:
        """Returns the average with this loss in it."""
        if epoch == 0:
            self._losses.append(loss)
        else:
            # Also the places of batches that a restart passed over: Kohya's zeros, which dilute its average.
            self._losses += [0.0] * (step + 1 - len(self._losses))
            self._total -= self._losses[step]
            self._losses[step] = loss
        self._total += loss
        return self._total / len(self._losses)


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
    accumulation = int(args.gradient_accumulation_steps)
    steps_per_epoch = math.ceil(dataset.batches / accumulation)
    if args.max_train_epochs is not None:
        args.max_train_steps = int(args.max_train_epochs) * steps_per_epoch
        info(f"override steps. steps for {args.max_train_epochs} epochs is: {args.max_train_steps}")
    rank = int(args.network_dim or 4)
    network = Network(rank, float(args.network_alpha or rank), args.seed)
    optimizer = AdamW(network.parameters())
    rng = np.random.default_rng(args.seed)
    known = load_state(Path(args.resume), network, optimizer, rng) if args.resume else None
    epochs = math.ceil(args.max_train_steps / steps_per_epoch)
    _announce(args, dataset, epochs)
    metadata = describe(args, dataset, epochs, began)
    loop = _Loop(args, dataset, network, optimizer, rng)
    steps = loop.run(epochs, *_start(args, dataset.batches, known))
    if args.save_state or args.save_state_on_train_end:
        save_state(
            Path(args.output_dir) / f"{args.output_name}-state", network, optimizer, rng, epochs, steps
        )
    metadata |= {"ss_steps": steps, "ss_epoch": epochs, "ss_training_finished_at": time.time()}
    save_lora(Path(args.output_dir) / f"{args.output_name}.safetensors", network, metadata)
    info("model saved.")
    return 0


def _announce(args: Namespace, dataset: Dataset, epochs: int) -> None:
    plain("running training / 学習開始")
    plain(f"  num train images * repeats / 学習画像の数×繰り返し回数: {dataset.repeated}")
    plain("  num validation images * repeats / 学習画像の数×繰り返し回数: 0")
    plain("  num reg images / 正則化画像の数: 0")
    plain(f"  num batches per epoch / 1epochのバッチ数: {dataset.batches}")
    plain(f"  num epochs / epoch数: {epochs}")
    plain(f"  batch size per device / バッチサイズ: {args.train_batch_size}")
    plain(f"  gradient accumulation steps / 勾配を合計するステップ数 = {args.gradient_accumulation_steps}")
    plain(f"  total optimization steps / 学習ステップ数: {args.max_train_steps}")


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


class _Loop:
    """One launch's steps."""

    def __init__(
        self, args: Namespace, dataset: Dataset, network: Network, optimizer: AdamW, rng: np.random.Generator
    ) -> None:
        self._args, self._dataset, self._network, self._optimizer, self._rng = (
            args,
            dataset,
            network,
            optimizer,
            rng,
        )
        self._losses = LossRecorder()
        self._counter = 0
        self._pending: dict[str, Array] = {}

    def run(self, epochs: int, first_epoch: int, skip: int) -> int:
        """Returns the trainer's own counter at the end."""
        self._counter = skip
        accumulation, most = int(self._args.gradient_accumulation_steps), int(self._args.max_train_steps)
        bar = ProgressBar(most - skip)
        for epoch in range(first_epoch, epochs):
            plain(f"\nepoch {epoch + 1}/{epochs}\n")
            batches = self._dataset.epoch(epoch)[max(skip, 0) :]
            # Kohya's skipped loader still yields the last skipped batch.
            passed, skip = min(1, max(skip, 0)), 0
            for index, batch in enumerate(batches):
                loss = self._accumulate(batch, accumulation)
                if (index + 1) % accumulation == 0 or index + 1 == len(batches):
                    self._step(bar, epoch)
                bar.set_loss(self._losses.add(epoch, index + passed, loss))
                if self._counter >= most:
                    break
            sample(self._args, self._network, epoch + 1, self._counter)
        bar.close()
        return self._counter

    def _accumulate(self, batch: list[TrainImage], accumulation: int) -> float:
        loss, gradients = self._network.loss_and_gradients(*_examples(batch, self._rng))
        for name, gradient in gradients.items():
            share = gradient / np.float32(accumulation)
            self._pending[name] = self._pending[name] + share if name in self._pending else share
        return loss

    def _step(self, bar: ProgressBar, epoch: int) -> None:
        args, network = self._args, self._network
        clip(self._pending, float(args.max_grad_norm))
        self._optimizer.step(self._pending, schedule.rate(args, self._optimizer.steps))
        self._pending = {}
        bar.update()
        self._counter += 1
        sample(args, network, None, self._counter)
        if args.save_every_n_steps and self._counter % int(args.save_every_n_steps) == 0:
            name = f"{args.output_name}-step{self._counter:08d}"
            save_lora(Path(args.output_dir) / f"{name}.safetensors", network, {"ss_steps": self._counter})
            if args.save_state:
                info(f"saving state at step {self._counter}")
                folder = Path(args.output_dir) / f"{name}-state"
                save_state(folder, network, self._optimizer, self._rng, epoch + 1, self._counter)
                remove_old_state(args, self._counter)


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
