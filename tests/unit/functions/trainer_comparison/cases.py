"""Datasets and configurations on which our plan is held against the trainer's own dataset code.

Only the standard library, because record.py runs in the trainer's environment.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

Size = tuple[int, int]
BUCKETED = {"resolution": "1024,1024", "enable_bucket": True}


@dataclass(frozen=True)
class Case:
    """A dataset as the trainer must see it.

    Attributes:
        folders: `<repeats>_<tokens>`, or below `reg/`, → the sizes (width, height) of its images.
        config: the trainer's options; `max_train_epochs` is always 3.
        gpus: training processes.
    """

    name: str
    folders: dict[str, tuple[Size, ...]]
    config: dict[str, Any] = field(default_factory=dict)
    gpus: int = 1


SQUARE: tuple[Size, ...] = ((1024, 1024),) * 5
MIXED: tuple[Size, ...] = (
    *((1024, 1024), (1600, 1200), (1200, 1600), (1920, 1080), (1080, 1920), (640, 480), (512, 512)),
    *((3000, 1000), (1000, 3000), (1023, 1025), (777, 1333), (2048, 2048), (1280, 1280)),
)
# As narrow and as wide as no bucket is, and at the very border of two buckets.
ODD: tuple[Size, ...] = (
    (4096, 256),
    (256, 4096),
    (1088, 960),
    (1056, 992),
    (64, 64),
    (65, 2000),
    (1152, 896),
)


def cases() -> list[Case]:
    return [*_named(), *_drawn(24)]


def _named() -> list[Case]:
    return [
        Case("one square bucket", {"10_cat": SQUARE}, BUCKETED),
        Case("no buckets at all", {"10_cat": MIXED}, {"resolution": "1024"}),
        Case("no buckets, resolution not square", {"3_cat": MIXED}, {"resolution": "768,1024"}),
        Case("mixed sizes, batch 4", {"7_cat": MIXED}, {**BUCKETED, "train_batch_size": 4}),
        Case("odd ratios", {"5_cat": ODD}, {**BUCKETED, "train_batch_size": 3}),
        Case("two folders", {"10_cat": SQUARE, "3_dog pet": MIXED}, {**BUCKETED, "train_batch_size": 4}),
        Case("a folder without a token", {"4": SQUARE}, BUCKETED),
        Case("accumulation", {"7_cat": MIXED}, {**BUCKETED, "gradient_accumulation_steps": 4}),
        Case("two GPUs", {"7_cat": MIXED}, {**BUCKETED, "train_batch_size": 2}, 2),
        Case(
            "eight GPUs with accumulation",
            {"40_cat": MIXED},
            {**BUCKETED, "train_batch_size": 2, "gradient_accumulation_steps": 3},
            8,
        ),
        Case("more GPUs than batches", {"1_cat": SQUARE}, {**BUCKETED, "train_batch_size": 8}, 8),
        Case(
            "small images stay small", {"5_cat": (*MIXED, *SQUARE)}, {**BUCKETED, "bucket_no_upscale": True}
        ),
        Case(
            "small images stay small, steps of 32",
            {"5_cat": MIXED},
            {**BUCKETED, "bucket_no_upscale": True, "bucket_reso_steps": 32, "train_batch_size": 4},
        ),
        Case("steps of 32", {"5_cat": MIXED}, {**BUCKETED, "bucket_reso_steps": 32}),
        Case("steps of 128", {"5_cat": MIXED}, {**BUCKETED, "bucket_reso_steps": 128}),
        Case("wide bounds", {"5_cat": ODD}, {**BUCKETED, "min_bucket_reso": 64, "max_bucket_reso": 4096}),
        Case(
            "narrow bounds", {"5_cat": MIXED}, {**BUCKETED, "min_bucket_reso": 896, "max_bucket_reso": 1152}
        ),
        Case(
            "bounds that are no multiple of the step",
            {"5_cat": MIXED},
            {**BUCKETED, "min_bucket_reso": 300, "max_bucket_reso": 1500},
        ),
        Case("512 pixels", {"5_cat": MIXED}, {**BUCKETED, "resolution": "512,512", "train_batch_size": 6}),
        Case(
            "resolution not square",
            {"5_cat": MIXED},
            {**BUCKETED, "resolution": "832,1216", "max_bucket_reso": 2048},
        ),
        Case(
            "regularization, fewer",
            {"4_cat": MIXED, "reg/2_animal": SQUARE},
            {**BUCKETED, "train_batch_size": 4},
        ),
        Case(
            "regularization, more",
            {"1_cat": SQUARE, "reg/3_animal": MIXED},
            {**BUCKETED, "train_batch_size": 4},
        ),
        Case("regularization, one image", {"9_cat": MIXED, "reg/1_animal": ((900, 1100),)}, BUCKETED),
        Case("validation", {"5_cat": MIXED}, {**BUCKETED, "validation_split": 0.2, "validation_seed": 7}),
        Case(
            "validation of two folders beside regularization",
            {"5_cat": MIXED, "2_dog": ODD, "reg/2_animal": SQUARE},
            {**BUCKETED, "validation_split": 0.3, "validation_seed": 1234, "train_batch_size": 4},
            2,
        ),
        Case(
            "a small split of few images",
            {"5_cat": MIXED[:4]},
            {**BUCKETED, "validation_split": 0.1, "validation_seed": 3},
        ),
    ]


def _drawn(number: int) -> list[Case]:
    """The same ones every time: sizes as cameras and crops make them, and options over their whole range."""
    source = random.Random(20261124)
    found = []
    for index in range(number):
        step = source.choice((32, 64, 64, 64, 128, 256))
        low = source.choice((256, 384, 512, 640))
        side = source.choice((768, 1024, 1024, 1280))
        config = {
            "resolution": f"{side},{side}",
            "enable_bucket": source.random() < 0.9,
            "min_bucket_reso": low,
            "max_bucket_reso": source.choice((1280, 1536, 2048)),
            "bucket_reso_steps": step,
            "bucket_no_upscale": source.random() < 0.3,
            "train_batch_size": source.choice((1, 2, 3, 4, 8, 16)),
            "gradient_accumulation_steps": source.choice((1, 1, 2, 5)),
        }
        folders = {f"{source.randint(1, 30)}_thing{n}": _sizes(source) for n in range(source.randint(1, 3))}
        if source.random() < 0.4:
            folders[f"reg/{source.randint(1, 3)}_class"] = _sizes(source)
        if source.random() < 0.4:
            config |= {
                "validation_split": source.choice((0.1, 0.25, 0.5)),
                "validation_seed": source.randint(0, 99),
            }
        found.append(Case(f"drawn {index}", folders, config, source.choice((1, 1, 2, 4, 8))))
    return found


def _sizes(source: random.Random) -> tuple[Size, ...]:
    return tuple((source.randint(300, 2600), source.randint(300, 2600)) for _ in range(source.randint(1, 14)))
