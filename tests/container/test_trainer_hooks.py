"""What the hooks make of the numbers of several processes, of which each sees its own alone."""

import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kohya_trainer.orders import Orders
from kohya_trainer.trainer_events import decode
from kohya_trainer.trainer_hooks import LoopFollower

# What a process hands to the mean at a step: its loss, whether it is broken, asks for a state, finds one due, images.
OTHER = [3.0, 0.0, 0.0, 0.0, 1.0]


class Accelerator:
    """The first of two processes; the other one is in `other`."""

    num_processes, process_index, is_main_process, sync_gradients = 2, 0, True, True

    def __init__(self, other: list[float]) -> None:
        self._other = other

    def reduce(self, values: list[float], reduction: str) -> list[float]:
        assert reduction == "mean"
        return [(own + other) / 2 for own, other in zip(values, self._other, strict=True)]

    def save_state(self, folder: str) -> None:
        Path(folder).mkdir(parents=True)


@pytest.fixture
def one_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    """The events of a first step with a loss of 1 and two images, beside another process."""

    def step(other: list[float]) -> list[dict[str, Any]]:
        orders = Orders(
            states=str(tmp_path / "states"), save_now=str(tmp_path / "save-now"), total=9, save_every=5
        )
        recorder = object()
        loop = {
            "accelerator": Accelerator(other),
            "args": Namespace(gradient_accumulation_steps=1),
            "batch": {"image_keys": ["a.jpg", "b.jpg"]},
            "global_step": 1,
            "loss_recorder": recorder,
            "optimizer": Namespace(param_groups=[{"lr": 1e-4}]),
            "train_dataloader": range(4),
        }
        LoopFollower(orders).after_batch(recorder, loop, 1.0)
        return [event for line in capsys.readouterr().out.splitlines() if (event := decode(line))]

    return step


def test_a_step_has_the_mean_loss_and_the_images_of_all_processes(one_step: Any) -> None:
    (told,) = one_step(OTHER)

    assert (told["event"], told["loss"], told["images"]) == ("step", 2.0, 3)


def test_a_state_that_another_host_asks_for_is_saved(one_step: Any) -> None:
    _, told = one_step([3.0, 0.0, 1.0, 0.0, 1.0])

    assert (told["event"], told["step"], told["batches"], told["asked"]) == ("state", 1, 4, True)


def test_no_state_is_saved_after_a_loss_of_another_process_broke(one_step: Any) -> None:
    events = one_step([math.nan, 1.0, 1.0, 0.0, 1.0])

    assert [told["event"] for told in events] == ["step"]
    assert math.isnan(events[0]["loss"])
