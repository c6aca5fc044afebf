"""Sample prompts, drawn by the rehearsal's own denoiser: colour fields, not pictures; written in Kohya's
naming.
"""

import itertools
import re
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
from PIL import Image

from rehearsal_trainer.dataset import PIXELS_PER_LATENT, embed
from rehearsal_trainer.log import info
from rehearsal_trainer.network import PATCH, TOKEN_SIZE, Array, Network, latent_of, time_features

DRAWING_STEPS = 8


def draw_samples(args: Namespace, network: Network, epoch: int | None, step: int) -> None:
    """One picture a prompt, named as Kohya names them."""
    if not args.sample_prompts:
        return
    folder = Path(args.output_dir) / "sample"
    folder.mkdir(parents=True, exist_ok=True)
    info(f"generating sample images at step / サンプル画像生成 ステップ: {step}")
    lines = Path(args.sample_prompts).read_text(encoding="utf-8").splitlines()
    prompts = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    number = f"e{epoch:06d}" if epoch is not None else f"{step:06d}"
    for index, line in enumerate(prompts):
        prompt, options = _parse(line)
        info(f"prompt: {prompt}")
        seed = options.get("d")
        suffix = "" if seed is None else f"_{seed}"
        name = f"{args.output_name}_{number}_{index:02d}_{time.strftime('%Y%m%d%H%M%S')}{suffix}.png"
        size = (options.get("w", 512), options.get("h", 512))
        _draw(network, prompt, size, seed if seed is not None else index).save(folder / name)


def _parse(line: str) -> tuple[str, dict[str, int]]:
    prompt, *rest = re.split(r"\s--(?=\w )", line)
    return prompt, {
        option[0]: int(option[2:]) for option in rest if re.fullmatch(r"[whd] \d+", option.strip())
    }


def _draw(network: Network, prompt: str, size: tuple[int, int], seed: int) -> Image.Image:
    """DDIM over a few steps, with a cosine noise schedule."""
    rows, columns = (max(1, length // (PIXELS_PER_LATENT * PATCH)) for length in (size[1], size[0]))
    rng = np.random.default_rng(seed)
    tokens: Array = rng.standard_normal((rows * columns, TOKEN_SIZE), dtype=np.float32)
    caption = np.repeat(embed(prompt)[None, :], len(tokens), axis=0)
    times = np.linspace(0.95, 0.0, DRAWING_STEPS + 1, dtype=np.float32)
    for now, following in itertools.pairwise(times):
        condition = np.concatenate(
            [time_features(np.full(len(tokens), now, dtype=np.float32)), caption], axis=1
        )
        noise = network.predict(tokens, condition)
        image = np.clip((tokens - np.sin(now * np.pi / 2) * noise) / np.cos(now * np.pi / 2), -1, 1)
        tokens = (np.cos(following * np.pi / 2) * image + np.sin(following * np.pi / 2) * noise).astype(
            np.float32
        )
    colours = np.clip((np.nan_to_num(latent_of(tokens, rows, columns)[:, :, :3]) + 1) * 127.5, 0, 255).astype(
        np.uint8
    )
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)
