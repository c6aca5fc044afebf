"""A validation split that holds nothing back is told, with the least share that does."""

from __future__ import annotations

import math
import random
import re
from functools import cache

import pytest

from fine_tuning import validation
from fine_tuning.findings import Finding
from fine_tuning.layout import TrainingFolder, lay_out
from tests.functions_data import file


@cache
def folders(*images: int, regularization: int) -> tuple[TrainingFolder, ...]:
    """With that many images each."""
    paths = [f"{10 + number}_x/{n}" for number, count in enumerate(images) for n in range(count)]
    paths += [f"reg/1_x/{n}" for n in range(regularization)]
    files = [file(f"{path}.{extension}") for path in paths for extension in ("jpg", "txt")]
    return lay_out(files, 10, "x", ".txt", ".txt").folders


def judged(share: float, *images: int, regularization: int = 0) -> list[Finding]:
    values = {"validation_split": share, "validation_seed": 1}
    return validation.judge(folders(*images, regularization=regularization), values, "manifest.json")


def of_the_trainer(images: int, share: float) -> tuple[set[int], set[int]]:
    """Trained on and validated with: sd-scripts 2e0fcc5, library/train_util.py, split_train_val."""
    paths = list(range(images))
    random.Random(1).shuffle(paths)
    trained = paths[: math.ceil(len(paths) * (1 - share))]
    return set(trained), set(paths[len(paths) - round(len(paths) * share) :])


@pytest.mark.parametrize(
    ("share", "images"), [(0.05, (8,)), (0.05, (9, 10)), (0.04, (12,)), (0.5, (1,)), (0.07, (8,))]
)
def test_none_held_back_is_told_with_the_share_that_holds_one_back(
    share: float, images: tuple[int, ...]
) -> None:
    (told,) = judged(share, *images)
    assert (told.severity, told.code, told.path) == ("warning", "nothing-held-back", "manifest.json")
    assert f"is {share}" in told.message
    least = re.search(r"Raise it to (0\.\d+)", told.remedy)
    if least is None:
        assert max(images) == 1
        return
    trained, validated = of_the_trainer(max(images), float(least[1]))
    assert validated - trained
    assert judged(float(least[1]), *images) == []


@pytest.mark.parametrize("images", [(20,), (3, 3, 20)])
def test_one_image_of_one_folder_is_enough(images: tuple[int, ...]) -> None:
    assert judged(0.05, *images) == []


def test_what_is_validated_with_and_trained_on_is_no_validation() -> None:
    (told,) = judged(0.07, 8)
    assert "trained on as well" in told.message
    (without,) = judged(0.05, 8)
    assert "no validation loss" in without.message


def test_regularization_images_are_never_held_back() -> None:
    assert len(judged(0.05, 8, regularization=100)) == 1


@pytest.mark.parametrize("images", range(1, 60))
def test_it_is_told_exactly_where_the_trainer_validates_with_nothing_of_its_own(images: int) -> None:
    for hundredths in range(1, 60):
        trained, validated = of_the_trainer(images, hundredths / 100)
        assert bool(judged(hundredths / 100, images)) == (not validated - trained)
