"""Aspect buckets, batches and steps, computed as the trainer does.

The rules are those of sd-scripts: library/train_util.py (BucketManager, BaseDataset.make_buckets,
DreamBoothDataset) and library/model_util.py (make_bucket_resolutions). Sizes are (width, height) in pixels.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fine_tuning.inventory import InspectedFile
from fine_tuning.layout import TrainingFolder

Size = tuple[int, int]
# Pixels; no GPU trains more, and making the buckets of far larger bounds takes the trainer, and us, for ever.
LARGEST_SIDE = 16_384


class BucketOptionsError(ValueError):
    """Options of which the trainer makes no buckets; it stops with an assertion."""


class NoBucketError(ValueError):
    """An image that has no aspect bucket; the trainer makes one without pixels and stops at it."""


@dataclass(frozen=True)
class BucketOptions:
    """The options that decide about buckets, named as the trainer's."""

    resolution: Size
    enable_bucket: bool = False
    min_bucket_reso: int = 256
    max_bucket_reso: int = 1024
    bucket_reso_steps: int = 64
    bucket_no_upscale: bool = False

    @classmethod
    def of_config(cls, config: dict[str, Any]) -> BucketOptions:
        """Of a resolved configuration, with the option table's defaults filled in."""
        return cls(
            resolution=parse_resolution(config.get("resolution")),
            enable_bucket=bool(config.get("enable_bucket", False)),
            min_bucket_reso=config.get("min_bucket_reso", 256),
            max_bucket_reso=config.get("max_bucket_reso", 1024),
            bucket_reso_steps=config.get("bucket_reso_steps", 64),
            bucket_no_upscale=bool(config.get("bucket_no_upscale", False)),
        ).adjusted()

    def adjusted(self) -> BucketOptions:
        """Bounds as multiples of the step, as `adjust_min_max_bucket_reso_by_steps` makes them."""
        if not self.enable_bucket:
            return self
        step = self.bucket_reso_steps
        if step <= 0 or step % 32:  # verify_training_args wants a multiple of 32 for SDXL
            raise BucketOptionsError(f"bucket_reso_steps is {step}; SDXL needs a multiple of 32")
        low = self.min_bucket_reso - self.min_bucket_reso % step
        high = self.max_bucket_reso + (-self.max_bucket_reso) % step
        if not 0 < low <= min(self.resolution):
            raise BucketOptionsError(
                f"min_bucket_reso {self.min_bucket_reso} is not between 1 and the resolution"
            )
        if high > LARGEST_SIDE:
            raise BucketOptionsError(f"max_bucket_reso {self.max_bucket_reso} is above {LARGEST_SIDE}")
        if high < max(self.resolution):
            raise BucketOptionsError(f"max_bucket_reso {self.max_bucket_reso} is below the resolution")
        return BucketOptions(self.resolution, True, low, high, step, self.bucket_no_upscale)


def parse_resolution(value: Any) -> Size:
    """`1024`, `"1024"` or `"1024,768"` → (width, height); 1024 × 1024 where nothing is said."""
    parts = str(value if value is not None else 1024).split(",")
    try:
        sides = [int(part) for part in parts]
    except ValueError as cause:
        raise BucketOptionsError(f"resolution '{value}' is not one or two numbers of pixels") from cause
    if len(sides) > 2 or min(sides) < 64 or max(sides) > LARGEST_SIDE:
        raise BucketOptionsError(
            f"resolution '{value}' is not one or two numbers between 64 and {LARGEST_SIDE} pixels"
        )
    return sides[0], sides[-1]


@cache
def predefined(options: BucketOptions) -> tuple[Size, ...]:
    """The resolutions to choose from, in order (model_util.make_bucket_resolutions)."""
    if not options.enable_bucket:
        return (options.resolution,)
    step, low, high = options.bucket_reso_steps, options.min_bucket_reso, options.max_bucket_reso
    area = options.resolution[0] * options.resolution[1]
    side = int(math.sqrt(area) // step) * step
    sizes = {(side, side)}
    for width in range(low, high + 1, step):
        height = min(high, int((area // width) // step) * step)
        if height >= low:
            sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


def select(width: int, height: int, options: BucketOptions) -> Size:
    """The bucket of an image (BucketManager.select_bucket); ties go to the first, as numpy's argmin does.

    Raises NoBucketError, with bucket_no_upscale only.
    """
    if options.bucket_no_upscale and options.enable_bucket:
        return _without_upscaling(width, height, options)
    sizes = predefined(options)
    if (width, height) in sizes:
        return width, height
    aspect_ratio = width / height
    return min(sizes, key=lambda size: abs(size[0] / size[1] - aspect_ratio))


def _without_upscaling(width: int, height: int, options: BucketOptions) -> Size:
    step = options.bucket_reso_steps
    area = options.resolution[0] * options.resolution[1]
    if width * height > area:
        aspect_ratio = width / height
        ideal_width = math.sqrt(area * aspect_ratio)
        by_width = _round_down(ideal_width, step)
        by_width_height = _round_down(by_width / aspect_ratio, step)
        by_height = _round_down(area / ideal_width, step)
        by_height_width = _round_down(by_height * aspect_ratio, step)
        if 0 in (by_width_height, by_height):
            raise NoBucketError("is too narrow for any aspect bucket")
        width_error = abs(by_width / by_width_height - aspect_ratio)
        height_error = abs(by_height_width / by_height - aspect_ratio)
        if width_error < height_error:
            width, height = by_width, int(by_width / aspect_ratio + 0.5)
        else:
            width, height = int(by_height * aspect_ratio + 0.5), by_height
    bucket = width - width % step, height - height % step
    if 0 in bucket:
        raise NoBucketError(f"has a side below a bucket step of {step} pixels")
    return bucket


def _round_down(length: float, step: int) -> int:
    rounded = int(length + 0.5)
    return rounded - rounded % step


@dataclass(frozen=True)
class Bucket:
    """An aspect bucket, with how many images (repeats counted) it shows in an epoch."""

    size: Size
    images: int

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]


@dataclass(frozen=True)
class HeldBack:
    """The share of each folder's images that is validated with and not trained on."""

    share: float
    seed: int

    @classmethod
    def of_config(cls, config: dict[str, Any]) -> HeldBack | None:
        """Of a resolved configuration, whose validation always has a seed of its own."""
        split = config.get("validation_split")
        return cls(split, config["validation_seed"]) if split else None

    def rest(self, folder: TrainingFolder) -> list[InspectedFile]:
        """The images that are trained on (train_util.py, split_train_val: Python's own generator)."""
        targets = {placed.source: placed.target for placed in folder.files}
        images = sorted(folder.images, key=lambda image: targets[image.path])
        random.Random(self.seed).shuffle(images)
        return images[: trained_on(len(images), self.share)]


def trained_on(images: int, share: float) -> int:
    """How many of a folder's images a validation split leaves to train on (train_util.py, split_train_val)."""
    return math.ceil(images * (1 - share))


def fill(
    folders: Sequence[TrainingFolder], options: BucketOptions, held_back: HeldBack | None = None
) -> list[Bucket]:
    """The buckets of an epoch; raises NoBucketError as `select` does.

    Regularization images are never held back; they are drawn until they are as many as the images to train on.
    """
    images: Counter[Size] = Counter()
    total = 0
    for folder in folders:
        if not folder.is_regularization:
            for image in held_back.rest(folder) if held_back else folder.images:
                images[select(image.width or 0, image.height or 0, options)] += folder.repeats
                total += folder.repeats
    for size, count in _drawn(folders, options, total):
        images[size] += count
    return [Bucket(size, count) for size, count in sorted(images.items())]


def _drawn(
    folders: Sequence[TrainingFolder], options: BucketOptions, total: int
) -> Iterator[tuple[Size, int]]:
    """Regularization images, each with how often it is drawn: its repeats at first, then one by one, in order."""
    offered = [
        (select(image.width or 0, image.height or 0, options), folder.repeats)
        for folder in folders
        if folder.is_regularization
        for image in folder.images
    ]
    used = 0
    for size, repeats in offered:
        if used >= total:
            return
        yield size, repeats
        used += repeats
    rounds, rest = divmod(max(0, total - used), len(offered) or 1)
    for number, (size, _) in enumerate(offered):
        yield size, rounds + (number < rest)


def batches(buckets: Sequence[Bucket], batch_size: int) -> int:
    """Batches of an epoch: each bucket is batched on its own."""
    return sum(math.ceil(bucket.images / batch_size) for bucket in buckets)
