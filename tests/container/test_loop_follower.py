"""What the hooks make of the numbers of several processes, of which each sees its own alone."""

import itertools
import math
import select
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kohya_trainer.hooks import loop_follower
from kohya_trainer.hooks.loop_follower import LoopFollower
from kohya_trainer.hooks.save_policy import LEAST_SECONDS, MOST_SECONDS_LOST, MOST_SHARE
from kohya_trainer.orders import Orders
from kohya_trainer.trainer_events import decode, encode

# What another process hands to the mean, after a step: its loss, whether it is broken, images …
OTHER = [3.0, 0.0, 1.0]
# … and where the next one begins: whether a state is due, whether one is asked for.
NEITHER, ASKED = [0.0, 0.0], [0.0, 1.0]


class Accelerator:
    """The first of two processes; what the other one says in turn is in `others`."""

    num_processes, process_index, is_main_process, sync_gradients = 2, 0, True, True

    def __init__(self, *others: list[float]) -> None:
        self._others = iter(others)

    def reduce(self, values: list[float], reduction: str) -> list[float]:
        assert reduction == "mean"
        return [(own + other) / 2 for own, other in zip(values, next(self._others), strict=True)]

    def save_state(self, folder: str) -> None:
        Path(folder).mkdir(parents=True)

    def unwrap_model(self, model: Any) -> Any:
        return model


def the_loop(accelerator: Accelerator, recorder: object, **more: Any) -> dict[str, Any]:
    """The variables of the trainer's loop that the hooks read."""
    return {
        "accelerator": accelerator,
        "args": Namespace(
            gradient_accumulation_steps=1,
            max_train_steps=9,
            save_every_n_steps=None,
            validate_every_n_steps=None,
        ),
        "batch": {},
        "loss_recorder": recorder,
        "network": Namespace(save_weights=None),
        "optimizer": Namespace(param_groups=[{"lr": 1e-4, "params": []}]),
        "train_dataloader": range(4),
        **more,
    }


@pytest.fixture
def one_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    """The events of a first step with a loss of 1 and two images, beside another process, until the next one begins."""

    def step(
        other: list[float],
        where_the_next_begins: list[float] = NEITHER,
        loss: float = 1.0,
        names: Sequence[str] = ("a.jpg", "b.jpg"),
    ) -> list[dict[str, Any]]:
        orders = Orders(states=str(tmp_path / "states"), save_now=str(tmp_path / "save-now"), save_every=5)
        recorder = object()
        batch = {"image_keys": list(names)}
        loop = the_loop(Accelerator(other, where_the_next_begins), recorder, batch=batch, global_step=1)
        follower = LoopFollower(orders)
        follower.before_batch(loop)
        follower.after_batch(recorder, loop, loss)
        assert not (tmp_path / "states").exists()
        follower.before_batch(loop)
        return [event for line in capsys.readouterr().out.splitlines() if (event := decode(line))]

    return step


def test_a_step_has_the_mean_loss_and_the_images_of_all_processes(one_step: Any) -> None:
    (told,) = one_step(OTHER)

    assert (told["event"], told["total"], told["loss"], told["images"]) == ("step", 9, 2.0, 3)


@pytest.mark.parametrize(
    ("descriptions", "rates", "told"),
    [
        (None, [5e-5, 1e-4], 1e-4),
        (["textencoder", "unet"], [5e-5, 1e-4], 1e-4),
        (["textencoder", "unet"], [5e-4, 1e-4], 1e-4),
        (["textencoder", "textencoder plus", "unet", "unet plus"], [5e-5, 8e-4, 1e-4, 1.6e-3], 1e-4),
        (["unet_block4", "unet_block5", "unet_block7"], [5e-5, 1e-4, 2e-5], 1e-4),
        (
            ["unet_block4", "unet_block4 plus", "unet_block5", "unet_block5 plus"],
            [1e-4, 4e-4, 5e-5, 2e-4],
            1e-4,
        ),
        (["textencoder", "textencoder plus"], [1e-4, 1.6e-3], 1e-4),
    ],
    ids=str,
)
def test_the_rate_of_a_step_is_the_one_that_was_set_for_the_u_net(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    descriptions: list[str] | None,
    rates: list[float],
    told: float,
) -> None:
    recorder = object()
    optimizer = Namespace(param_groups=[{"lr": rate, "params": []} for rate in rates])
    loop = the_loop(
        Accelerator(OTHER), recorder, optimizer=optimizer, lr_descriptions=descriptions, global_step=1
    )
    follower = LoopFollower(Orders(states=str(tmp_path), save_now=""))
    follower.before_batch(loop)
    follower.after_batch(recorder, loop, 1.0)

    (event,) = [event for line in capsys.readouterr().out.splitlines() if (event := decode(line))]
    assert event["learning_rate"] == pytest.approx(told)


@pytest.mark.parametrize("of_training", [(None, None), (100, 900)])
def test_the_best_model_tells_the_timesteps_of_training(
    tmp_path: Path, of_training: tuple[int | None, int | None]
) -> None:
    recorder, saved = object(), []
    loop = the_loop(
        Accelerator(OTHER, [1.0], [0.0]),
        recorder,
        global_step=1,
        epoch=0,
        val_timesteps_step=0,
        validation_total_steps=1,
        original_args_min_timestep=of_training[0],
        original_args_max_timestep=of_training[1],
    )
    args = loop["args"]
    args.output_dir, args.min_timestep, args.max_timestep = str(tmp_path), 800, 800
    loop["save_model"] = lambda *_: saved.append((args.min_timestep, args.max_timestep))
    follower = LoopFollower(Orders(states=str(tmp_path / "states"), save_now=""))
    follower.before_batch(loop)
    follower.after_batch(recorder, loop, 1.0)

    follower.after_batch(object(), loop, 1.0)

    assert saved == [of_training]
    assert (args.min_timestep, args.max_timestep) == (800, 800)


def test_a_step_is_told_in_one_piece_however_long_its_files_names_are(
    one_step: Any,
) -> None:
    names = [f"{number}{'ね' * 83}.png" for number in range(64)]

    (told,) = one_step(OTHER, names=names)

    assert (told["files"], told["more_files"]) == (names[:4], 60)
    assert len(encode(**told)) < select.PIPE_BUF - len("\n\n")


def test_a_state_that_another_host_asks_for_is_saved(one_step: Any) -> None:
    _, told = one_step(OTHER, ASKED)

    assert (told["event"], told["step"], told["batches"], told["asked"]) == ("state", 1, 4, True)


def test_no_state_is_saved_after_a_loss_of_another_process_broke(one_step: Any) -> None:
    events = one_step([math.nan, 1.0, 1.0], ASKED)

    assert [told["event"] for told in events] == ["step"]
    assert math.isnan(events[0]["loss"])


@pytest.mark.parametrize(("loss", "files"), [(1.0, []), (math.nan, ["a.jpg", "b.jpg"])])
def test_of_a_broken_loss_only_files_of_the_process_are_told_whose_it_is(
    one_step: Any, loss: float, files: list[str]
) -> None:
    (told,) = one_step([math.nan, 1.0, 1.0], loss=loss)

    assert told["files"] == files


def test_no_state_is_kept_of_weights_whose_validation_is_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orders = Orders(states=str(tmp_path / "states"), save_now=str(tmp_path / "save-now"), patience=1)
    recorder, validation = object(), {"val_timesteps_step": 0, "validation_total_steps": 1}
    loop = the_loop(Accelerator(OTHER, [1.0], [0.0], ASKED), recorder, global_step=1, **validation)
    follower = LoopFollower(orders)
    follower.before_batch(loop)
    follower.after_batch(recorder, loop, 1.0)

    follower.after_batch(object(), loop, math.nan)
    follower.before_batch(loop)

    told = [event for line in capsys.readouterr().out.splitlines() if (event := decode(line))]
    assert [event["event"] for event in told] == ["step", "validation"]
    assert not told[1]["stop"]


def test_a_restart_without_a_plan_makes_as_many_steps_as_the_trainer_itself_announced(tmp_path: Path) -> None:
    orders = Orders(
        states=str(tmp_path), save_now="", done=5, counter_start=1, resume=str(tmp_path), exact=True
    )
    loop = the_loop(Accelerator(), object())

    LoopFollower(orders).before_batch(loop)

    assert loop["args"].max_train_steps == 1 + 9 - 5


@pytest.mark.parametrize(("step_seconds", "save_seconds"), [(0.4, 1.2), (3.0, 20.0), (9.0, 120.0)])
def test_over_hours_saving_is_cheap_and_ten_minutes_at_most_can_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_seconds: float, save_seconds: float
) -> None:
    now = 0.0
    saved: list[float] = []

    class Alone(Accelerator):
        num_processes = 1

        def save_state(self, folder: str) -> None:
            nonlocal now
            super().save_state(folder)
            now += save_seconds
            saved.append(now)

    monkeypatch.setattr(loop_follower.time, "monotonic", lambda: now)
    recorder = object()
    orders = Orders(states=str(tmp_path / "states"), save_now=str(tmp_path / "save-now"))
    follower = LoopFollower(orders)
    loop = the_loop(Alone(), recorder)
    for step in range(1, int(3 * 3600 / step_seconds)):
        follower.before_batch(loop)
        now += step_seconds
        follower.after_batch(recorder, {**loop, "global_step": step}, 1.0)

    gaps = [later - earlier for earlier, later in itertools.pairwise([0.0, *saved])]
    assert max(gaps) <= MOST_SECONDS_LOST
    share = save_seconds * len(saved) / now
    # A state that costs 120 s cannot be had every ten minutes for 3 %: then less is lost rather than more.
    assert share <= MOST_SHARE * 1.1 or max(gaps) > MOST_SECONDS_LOST - 2 * step_seconds
    assert 0 < len(saved) <= now / LEAST_SECONDS
