"""The pictures of sample prompts, and what they add to a quote."""

from __future__ import annotations

from typing import Any

import pytest

from fine_tuning import quote
from fine_tuning.drawing import NOTHING, drawing
from fine_tuning.schedule import Schedule

LENGTH = Schedule(total_steps=100, epochs=10)
SQUARE = (1024, 1024)


def drawn(*prompts: str, gpu: str = "A10G", gpus: int = 1, **config: Any) -> Any:
    return drawing(prompts, config, LENGTH, SQUARE, gpu, gpus)


@pytest.mark.parametrize(
    ("config", "times"),
    [
        ({}, 1),
        ({"sample_every_n_epochs": 1}, 10),
        ({"sample_every_n_epochs": 3}, 4),  # after 3, 6, 9 and at the end
        ({"sample_every_n_steps": 25}, 4),
        ({"sample_every_n_steps": 30}, 4),
        ({"sample_every_n_steps": 25, "sample_every_n_epochs": 5}, 2),
        ({"sample_at_first": True, "sample_every_n_epochs": 5}, 3),
    ],
)
def test_prompts_are_drawn_when_they_are_due_and_at_the_end_once(config: dict[str, Any], times: int) -> None:
    found = drawn("a cat", "a dog", **config)
    assert found.pictures == 2 * times
    assert found.seconds == pytest.approx(2 * times * drawn("a cat").seconds)


def test_a_picture_takes_as_long_as_its_size_and_steps_ask_for() -> None:
    one = drawn("a cat").seconds
    assert 10 < one < 60
    assert drawn("a cat --s 60").seconds == pytest.approx(2 * one)
    assert drawn("a cat --W 2048 --h 1024").seconds > 1.5 * one
    assert drawn("a cat", gpu="H100").seconds < one / 2


def test_gpus_share_the_prompts() -> None:
    assert drawn("a", "b", "c", gpus=2).seconds == pytest.approx(2 * drawn("a").seconds)
    assert drawn("a", "b", "c", gpus=2).pictures == 3


def test_no_prompt_takes_no_time() -> None:
    assert drawn(sample_every_n_epochs=1) == NOTHING


def test_a_quote_counts_pictures_and_says_so() -> None:
    config = {"network_train_unet_only": True, "train_batch_size": 4}
    pictures = drawn("a cat", "a dog", sample_every_n_epochs=1)

    plain = quote.quote("ml.g5.8xlarge", 1000, 10, SQUARE, config)
    found = quote.quote("ml.g5.8xlarge", 1000, 10, SQUARE, config, drawn=pictures)

    more = found.drawing_seconds
    assert more == round(pictures.seconds)
    assert found.fixed_seconds == plain.fixed_seconds
    for name in ("seconds", "table_seconds", "own_seconds"):
        assert getattr(found, name) - getattr(plain, name) == pytest.approx(more, abs=1)
    assert found.steps_for(5.0) < plain.steps_for(5.0)
    assert f"Of the time {more} s are estimated for 20 sample pictures." in found.assumed
