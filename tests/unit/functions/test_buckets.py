"""Buckets, batches and steps.

The expected sizes were worked out with the trainer's own BucketManager (sd-scripts 48d368f).
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_tuning import buckets
from fine_tuning.buckets import BucketOptions, BucketOptionsError
from fine_tuning.layout import TrainingFolder
from fine_tuning.schedule import schedule
from tests.functions_data import file

SDXL = BucketOptions((1024, 1024), True, 256, 2048, 64)


def folder(name: str, repeats: int, *sizes: tuple[int, int]) -> TrainingFolder:
    images = tuple(file(f"{name}/{number}.jpg", *size) for number, size in enumerate(sizes))
    return TrainingFolder(name, repeats, (), images)


def test_the_predefined_resolutions_of_sdxl() -> None:
    # model_util.make_bucket_resolutions((1024, 1024), 256, 2048, 64)
    sizes = buckets.predefined(SDXL)
    assert len(sizes) == 41
    assert (sizes[0], sizes[-1]) == ((256, 2048), (2048, 512))
    assert (1024, 1024) in sizes
    assert all(
        width % 64 == 0 and height % 64 == 0 and width * height <= 1024 * 1024 for width, height in sizes
    )


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((1024, 1024), (1024, 1024)),
        ((640, 480), (1152, 896)),
        ((480, 640), (896, 1152)),
        ((512, 768), (832, 1216)),
        ((1920, 1080), (1344, 768)),
        ((10, 4000), (256, 2048)),
    ],
)
def test_an_image_goes_to_the_nearest_aspect_ratio(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    assert buckets.select(*size, SDXL) == bucket


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((640, 480), (640, 448)),
        ((1024, 1024), (1024, 1024)),
        ((4000, 3000), (1088, 832)),
        ((3000, 1000), (1728, 576)),
    ],
)
def test_without_upscaling_an_image_keeps_its_size_down_to_the_step(
    size: tuple[int, int], bucket: tuple[int, int]
) -> None:
    assert buckets.select(*size, BucketOptions((1024, 1024), True, 256, 2048, 64, True)) == bucket


def test_without_buckets_there_is_one() -> None:
    assert buckets.select(10, 4000, BucketOptions((512, 512))) == (512, 512)


def test_each_bucket_is_batched_on_its_own() -> None:
    filled = buckets.fill([folder("3_x", 3, (1024, 1024), (640, 480))], SDXL)
    assert [(b.size, b.images) for b in filled] == [((1024, 1024), 3), ((1152, 896), 3)]
    assert buckets.batches(filled, 2) == 4
    assert buckets.batches(filled, 6) == 2


@pytest.mark.parametrize(("reg", "expected"), [([(1024, 1024)], 4), ([(1024, 1024)] * 9, 4)])
def test_regularization_images_are_drawn_until_they_are_as_many(
    reg: list[tuple[int, int]], expected: int
) -> None:
    filled = buckets.fill([folder("2_x", 2, (640, 480), (640, 480)), folder("reg/1_y", 1, *reg)], SDXL)
    assert {b.size: b.images for b in filled}[(1024, 1024)] == expected


@pytest.mark.parametrize(
    "config",
    [
        {"resolution": "big"},
        {"resolution": "1,2,3"},
        {"resolution": 0},
        {"enable_bucket": True, "bucket_reso_steps": 50},
        {"enable_bucket": True, "bucket_reso_steps": 0},
        {"enable_bucket": True, "resolution": "256", "min_bucket_reso": 512},
        {"enable_bucket": True, "resolution": "1024", "max_bucket_reso": 512},
        {"enable_bucket": True, "max_bucket_reso": 10**12},
        {"resolution": 10**12},
    ],
)
def test_options_that_the_trainer_stops_at(config: dict[str, Any]) -> None:
    with pytest.raises(BucketOptionsError):
        BucketOptions.of_config(config)


def test_bounds_are_rounded_to_the_step() -> None:
    options = BucketOptions.of_config(
        {"enable_bucket": True, "min_bucket_reso": 300, "max_bucket_reso": 1500}
    )
    assert (options.min_bucket_reso, options.max_bucket_reso) == (256, 1536)


@given(st.integers(64, 9000), st.integers(64, 9000), st.booleans())
def test_every_bucket_is_a_multiple_of_the_step_and_no_larger_than_the_resolution(
    w: int, h: int, no: bool
) -> None:
    options = BucketOptions((1024, 1024), True, 256, 2048, 64, no)
    try:
        width, height = buckets.select(w, h, options)
    except buckets.NoBucketError:
        assert no
        return
    assert width % 64 == 0
    assert height % 64 == 0
    assert 0 < width * height <= 1024 * 1024 * 1.1


@pytest.mark.parametrize(
    ("layers", "batches", "accumulation", "steps", "epochs"),
    [
        ([{}, {}, {}], 30, 1, 300, 10),
        ([{}, {}, {}], 31, 4, 80, 10),
        ([{}, {}, {}], 1000, 1, 3000, 3),
        ([{}, {}, {}], 9000, 1, 9000, 1),
        ([{}, {"max_train_steps": 45}, {}], 30, 1, 45, 2),
        ([{"max_train_epochs": 2}, {"max_train_steps": 45}, {}], 30, 1, 60, 2),
        ([{"max_train_steps": 7}, {"max_train_epochs": 2}, {}], 30, 1, 7, 1),
        ([{"max_train_steps": 7, "max_train_epochs": 2}, {}, {}], 30, 1, 60, 2),
    ],
)
def test_steps(
    layers: list[dict[str, int]], batches: int, accumulation: int, steps: int, epochs: int
) -> None:
    planned, notes = schedule(layers, batches, accumulation)
    assert (planned.total_steps, planned.epochs) == (steps, epochs)
    assert [n.code for n in notes] == ([] if any(layers) else ["steps-planned"])


@pytest.mark.parametrize(
    ("batches", "because"),
    [
        (3000, "1 epoch was planned, because 10 would exceed 3000 steps: 3000"),
        (3001, "1 epoch was planned, although it alone exceeds 3000 steps: 3001"),
    ],
)
def test_an_epoch_that_is_too_long_by_itself_is_told(batches: int, because: str) -> None:
    _, (told,) = schedule([{}], batches, 1)
    assert because in told.message


def test_regularization_images_of_a_vast_dataset_are_counted_at_once() -> None:
    filled = buckets.fill(
        [folder("99999_x", 99_999, *[(1024, 1024)] * 999), folder("reg/1_y", 1, (64, 64))], SDXL
    )
    assert sum(bucket.images for bucket in filled) == 2 * 99_999 * 999
