"""Kohya's dataset: folders `<repeats>_<class tokens>`, captions, aspect buckets, and batches within one
bucket.

Sources: library/config_util.py, library/train_util.py (BucketManager) and library/model_util.py of sd-
scripts.
"""

import hashlib
import math
import os
import random
from argparse import Namespace
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from library.strategy_sd import SdSdxlLatentsCachingStrategy
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rehearsal_trainer.log import info

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
PIXELS_PER_LATENT = 8  # as SDXL's VAE
CAPTION_SIZE = 64


@dataclass(frozen=True)
class TrainImage:
    """`latent`: float32 (height, width, 4) in -1…1; `caption`: a fixed random vector of its words;
    `weight`: of its loss, prior_loss_weight for a regularization image.
    """

    path: Path
    repeats: int
    bucket: tuple[int, int]
    latent: NDArray[np.float32]
    caption: NDArray[np.float32]
    words: str
    weight: float = 1.0
    is_reg: bool = False


class Dataset:
    """All images of train_data_dir, in buckets."""

    def __init__(self, args: Namespace) -> None:
        info("Using DreamBooth method.")
        self._batch_size = int(args.train_batch_size)
        self._seed = int(args.seed)
        self.subsets: dict[str, tuple[int, int]] = {}
        self.regularization: dict[str, tuple[int, int]] = {}
        self.images: list[TrainImage] = []
        self.validation: list[TrainImage] = []
        for folder in sorted(path for path in Path(args.train_data_dir).iterdir() if path.is_dir()):
            self.images += self._read(folder, args, self.subsets, 1.0)
        self._split(args)
        if args.reg_data_dir:
            self._add_regularization(args)
        buckets = Counter(image.bucket for image in self.images for _ in range(image.repeats))
        self.buckets = dict(sorted(buckets.items()))
        if self.images:
            info("number of images (including repeats) / 各bucketの画像枚数（繰り返し回数を含む）")
            for index, (size, count) in enumerate(self.buckets.items()):
                info(f"bucket {index}: resolution {size}, count: {count}")

    @property
    def repeated(self) -> int:
        """Images with repeats, that is examples of an epoch."""
        return sum(self.buckets.values())

    @property
    def batches(self) -> int:
        """Batches of an epoch: each bucket is batched on its own."""
        return sum(math.ceil(count / self._batch_size) for count in self.buckets.values())

    def epoch(self, number: int) -> list[list[TrainImage]]:
        """The batches of an epoch in their order, which depends on seed and epoch alone."""
        shuffled = random.Random(self._seed + number)
        batches = []
        for bucket in self.buckets:
            images = [image for image in self.images if image.bucket == bucket for _ in range(image.repeats)]
            shuffled.shuffle(images)
            batches += [
                images[start : start + self._batch_size] for start in range(0, len(images), self._batch_size)
            ]
        shuffled.shuffle(batches)
        return batches

    def _split(self, args: Namespace) -> None:
        """split_train_val of library/train_util.py, over all folders at once."""
        share = float(args.validation_split or 0.0)
        if not share:
            return
        shuffled = list(self.images)
        random.Random(self._seed if args.validation_seed is None else args.validation_seed).shuffle(shuffled)
        self.validation = shuffled[len(shuffled) - round(len(shuffled) * share) :]
        kept = {image.path for image in shuffled[: math.ceil(len(shuffled) * (1 - share))]}
        self.images = [image for image in self.images if image.path in kept]

    def _add_regularization(self, args: Namespace) -> None:
        """As many as there are training images with their repeats, each in turn (DreamBoothDataset)."""
        wanted = sum(image.repeats for image in self.images)
        found: list[TrainImage] = []
        for folder in sorted(path for path in Path(args.reg_data_dir).iterdir() if path.is_dir()):
            found += self._read(folder, args, self.regularization, float(args.prior_loss_weight))
        if not found:
            info("no regularization images / 正則化画像が見つかりませんでした", "WARNING")
            return
        turns = Counter(found[index % len(found)].path for index in range(wanted))
        self.images += [replace(image, repeats=turns[image.path]) for image in found if turns[image.path]]

    def _read(
        self, folder: Path, args: Namespace, subsets: dict[str, tuple[int, int]], weight: float
    ) -> list[TrainImage]:
        number, _, words = folder.name.partition("_")
        if not number.isdecimal():
            info(
                f"ignore directory without repeats / 無視します: {folder.name}",
                "WARNING",
            )
            return []
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if int(number) < 1 or not paths:
            info(
                f"ignore subset with image_dir='{folder}': no images found or num_repeats is less than 1",
                "WARNING",
            )
            return []
        info(f"found directory {folder} contains {len(paths)} image files")
        missing, images, is_reg = 0, [], subsets is self.regularization
        for path in paths:
            caption_file = path.with_suffix(args.caption_extension)
            missing += not caption_file.is_file()
            caption = caption_file.read_text(encoding="utf-8").strip() if caption_file.is_file() else words
            bucket, latent = _latent(path, args)
            images.append(
                TrainImage(path, int(number), bucket, latent, embed(caption), caption, weight, is_reg)
            )
        if missing:
            info(f"No caption file found for {missing} images. class tokens will be used", "WARNING")
        subsets[folder.name] = (int(number), len(paths))
        return images

    def metadata(self) -> dict[str, Any]:
        """ss_dataset_dirs and ss_tag_frequency as Kohya writes them."""
        tags: dict[str, Counter[str]] = {name: Counter() for name in {**self.subsets, **self.regularization}}
        for image in self.images:
            tags[image.path.parent.name].update(tag.strip() for tag in image.words.split(",") if tag.strip())
        return {
            "ss_dataset_dirs": {
                name: {"n_repeats": n, "img_count": count} for name, (n, count) in self.subsets.items()
            },
            "ss_reg_dataset_dirs": {
                name: {"n_repeats": n, "img_count": count} for name, (n, count) in self.regularization.items()
            },
            "ss_tag_frequency": {name: dict(counts) for name, counts in tags.items()},
        }


def embed(caption: str) -> NDArray[np.float32]:
    """The mean of one fixed random vector a word."""
    vectors = [_word(word) for word in caption.lower().replace(",", " ").split()] or [np.zeros(CAPTION_SIZE)]
    return np.asarray(np.mean(vectors, axis=0), dtype=np.float32)


def _word(word: str) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(CAPTION_SIZE)


def _latent(path: Path, args: Namespace) -> tuple[tuple[int, int], NDArray[np.float32]]:
    """From the file where cache_latents_to_disk has left one; the first process alone writes it."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    bucket = select_bucket(image.size, args)
    if not args.cache_latents_to_disk:
        return bucket, _encoded(image, bucket)
    strategy = SdSdxlLatentsCachingStrategy()
    kept = strategy.get_latents_npz_path(str(path), image.size)
    if Path(kept).exists():
        return bucket, np.load(kept)["latents"]
    latent = _encoded(image, bucket)
    if os.environ.get("RANK", "0") == "0":
        strategy.save_latents_to_disk(kept, latent)
    return bucket, latent


def _encoded(image: Image.Image, bucket: tuple[int, int]) -> NDArray[np.float32]:
    size = (bucket[0] // PIXELS_PER_LATENT, bucket[1] // PIXELS_PER_LATENT)
    pixels = np.asarray(ImageOps.fit(image, size, Image.Resampling.BOX), dtype=np.float32) / 127.5 - 1.0
    return np.concatenate([pixels, pixels.mean(axis=2, keepdims=True)], axis=2)


def select_bucket(size: tuple[int, int], args: Namespace) -> tuple[int, int]:
    """The resolution (width, height) at which an image of `size` is trained."""
    numbers = [int(number) for number in str(args.resolution).split(",")]
    largest = (numbers[0], numbers[-1])
    if not args.enable_bucket:
        return largest
    aspect, steps = size[0] / size[1], int(args.bucket_reso_steps)
    if args.bucket_no_upscale:
        return _shrunk(size, largest[0] * largest[1], steps)
    resolutions = bucket_resolutions(largest, int(args.min_bucket_reso), int(args.max_bucket_reso), steps)
    return (
        size
        if size in resolutions
        else min(resolutions, key=lambda bucket: abs(bucket[0] / bucket[1] - aspect))
    )


def bucket_resolutions(largest: tuple[int, int], least: int, most: int, steps: int) -> list[tuple[int, int]]:
    """Kohya's make_bucket_resolutions: every pair of multiples of `steps` that fits the area."""
    area = largest[0] * largest[1]
    square = int(math.sqrt(area) // steps) * steps
    found = {(square, square)}
    for width in range(least, most + 1, steps):
        height = min(most, int((area // width) // steps) * steps)
        if height >= least:
            found |= {(width, height), (height, width)}
    return sorted(found)


def _shrunk(size: tuple[int, int], area: int, steps: int) -> tuple[int, int]:
    """bucket_no_upscale: the image's own size, made smaller where it exceeds the area, rounded down to
    `steps`.
    """
    width, height = size
    if width * height > area:
        aspect = width / height
        by_width = _rounded(math.sqrt(area * aspect), steps)
        by_height = _rounded(math.sqrt(area / aspect), steps)
        width_error = abs(by_width / max(1, _rounded(by_width / aspect, steps)) - aspect)
        height_error = abs(_rounded(by_height * aspect, steps) / by_height - aspect)
        if width_error < height_error:
            width, height = by_width, int(by_width / aspect + 0.5)
        else:
            width, height = int(by_height * aspect + 0.5), by_height
    return max(steps, width - width % steps), max(steps, height - height % steps)


def _rounded(length: float, steps: int) -> int:
    whole = int(length + 0.5)
    return whole - whole % steps
