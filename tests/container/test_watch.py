"""What the hooks tell, as the watch takes it: smoothing, divergence, a stuck trainer, validations."""

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kohya_trainer import kept_results
from kohya_trainer import watch as watching
from kohya_trainer.best_model import find_best
from kohya_trainer.checkpoints import CheckpointStore
from kohya_trainer.divergence import FACTOR, WINDOW, DivergenceWatch
from kohya_trainer.hooks.save_policy import (
    LEAST_SECONDS,
    MOST_SECONDS_LOST,
    MOST_SHARE,
    seconds_between_saves,
)
from kohya_trainer.loss_history import VALIDATION_NAME, LossHistory, SmoothedLoss
from kohya_trainer.orders import Orders, read_orders
from kohya_trainer.run_so_far import RunSoFar
from kohya_trainer.trainer_events import decode, encode
from kohya_trainer.watch import TrainingWatch


def watch(
    tmp_path: Path, said: list[str], stall_seconds: float = 60.0, private: bool = False
) -> TrainingWatch:
    checkpoints = tmp_path / "checkpoints"
    orders = Orders(states=str(tmp_path / "states"), save_now=str(tmp_path / "save-now"))
    return TrainingWatch(
        {},
        tmp_path / "output",
        RunSoFar(
            CheckpointStore(checkpoints, "fingerprint"),
            None,
            LossHistory(checkpoints, 0),
            LossHistory(checkpoints, 0, VALIDATION_NAME),
        ),
        orders,
        stall_seconds,
        private,
        False,
        said.append,
    )


def step(number: int, loss: float, **facts: Any) -> bytes:
    told = {
        "total": 40,
        "learning_rate": 1e-4,
        "seconds": 0.5,
        "images": 4,
        "files": ["a.jpg", "b.jpg"],
        "more_files": 0,
        "gpu_gib": 12.5,
    }
    return f"\n{encode('step', step=number, loss=loss, **{**told, **facts})}\n".encode()


def test_a_step_is_told_with_smoothed_loss_rate_speed_and_memory(tmp_path: Path) -> None:
    said: list[str] = []
    watched = watch(tmp_path, said)

    watched.output(step(1, 1.0, total=4) + step(2, 0.5, total=4))

    assert said[-1] == (
        "progress step=2 total=4 loss=0.75 lr=0.0001 images_per_second=8 gpu_memory_gib=12.5 "
        "seconds_per_step=0.5 eta_seconds=1"
    )


def test_what_the_trainer_prints_of_its_steps_is_not_believed_where_they_are_told(tmp_path: Path) -> None:
    """Of two processes: the line that follows came before the first one's newline."""
    watched = watch(tmp_path, [])

    watched.output(b"  total optimization steps: 402026-11-27 18:55:12 INFO\n" + step(1, 1.0))

    assert watched.total == 40


def test_an_event_behind_a_bar_on_its_line_is_found_and_the_bar_not_counted(tmp_path: Path) -> None:
    said: list[str] = []
    bar = "\rsteps:  25%|# | 1/4 [00:01<00:01,  2.00it/s, avr_loss=0.7]"

    watch(tmp_path, said).output(bar.encode() + step(1, 1.0).lstrip())

    assert [line.split(" loss=")[1].split()[0] for line in said] == ["1"]


def test_a_torn_event_is_a_line_of_the_log(tmp_path: Path) -> None:
    said: list[str] = []

    watch(tmp_path, said).output(encode("step", step=1)[:-5].encode() + b"\n")

    assert len(said) == 1
    assert decode(said[0]) is None


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_step_and_batch(tmp_path: Path, loss: float) -> None:
    watched = watch(tmp_path, [])

    watched.output(step(1, 0.5) + step(2, loss))

    assert watched.must_stop()
    assert watched.error is not None
    assert watched.error.kind == "not-finite"
    assert "at step 2, in the batch of a.jpg, b.jpg." in watched.error.cause


def test_a_broken_loss_leaves_the_last_finite_state_and_says_which(tmp_path: Path) -> None:
    watched = watch(tmp_path, [])
    state = tmp_path / "states" / "step-00000010"
    state.mkdir(parents=True)
    (state / "optimizer.bin").write_text("finite")
    told = encode("state", step=10, path=str(state), seconds=0.5, batches=40, asked=False)

    watched.output(step(10, 0.5) + f"{told}\n".encode() + step(11, math.nan))

    assert watched.error is not None
    assert "at step 11" in watched.error.cause
    assert watched.error.cause.endswith("The state after step 10 is kept.")
    (kept,) = CheckpointStore(tmp_path / "checkpoints", "fingerprint").found()[0]
    assert (kept.step, (kept.state / "optimizer.bin").read_text()) == (10, "finite")


def test_a_picture_without_room_is_said_and_ends_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    watched = watch(tmp_path, said)

    watched.output(step(1, 0.5) + f"{encode('no-picture', index=1)}\n".encode())

    assert said[-1] == "sample prompt 2 is not drawn: the GPU has no room for its picture"
    assert not watched.must_stop()


def _state(tmp_path: Path, number: int, asked: bool) -> bytes:
    folder = tmp_path / "states" / f"step-{number:08d}"
    folder.mkdir(parents=True)
    (folder / "optimizer.bin").write_text(str(number))
    facts = {"step": number, "path": str(folder), "seconds": 0.5, "batches": 40, "asked": asked}
    return f"{encode('state', **facts)}\n".encode()


@pytest.fixture
def copying(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Copies begin when it is set."""
    go_on, copy = threading.Event(), kept_results.copy_whole

    def slow(source: Path, target: Path) -> None:
        go_on.wait(30)
        copy(source, target)

    monkeypatch.setattr(kept_results, "copy_whole", slow)
    yield go_on
    go_on.set()


def _has_saved(watched: TrainingWatch) -> bool:
    """Within the seconds that a copy takes; the trainer says nothing meanwhile."""
    deadline = time.monotonic() + 10
    while not watched.has_saved() and time.monotonic() < deadline:
        time.sleep(0.01)
        watched.silence()
    return watched.has_saved()


def _results(tmp_path: Path) -> dict[str, str]:
    return CheckpointStore(tmp_path / "checkpoints", "fingerprint").found()[0][0].results


def test_a_state_that_was_asked_for_waits_for_no_copy_and_lists_it_afterwards(
    tmp_path: Path, copying: threading.Event
) -> None:
    said: list[str] = []
    watched = watch(tmp_path, said)
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "cats-step00000008.safetensors").write_text("model")

    watched.output(step(10, 0.5) + _state(tmp_path, 10, asked=True))

    assert said[-1] == "checkpoint step=10 seconds=0.50"
    assert _results(tmp_path) == {}
    assert not watched.has_saved()
    copying.set()
    assert _has_saved(watched)
    assert list(_results(tmp_path)) == ["cats-step00000008.safetensors"]


def test_a_state_that_is_due_waits_for_copies_but_not_for_ever(
    tmp_path: Path, copying: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch(tmp_path, [])
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "cats-step00000008.safetensors").write_text("model")
    threading.Timer(0.2, copying.set).start()

    watched.output(step(10, 0.5) + _state(tmp_path, 10, asked=False))

    assert list(_results(tmp_path)) == ["cats-step00000008.safetensors"]
    copying.clear()
    monkeypatch.setattr(watching, "SECONDS_FOR_RESULTS", 0.1)
    (tmp_path / "output" / "cats-step00000016.safetensors").write_text("model")

    watched.output(step(20, 0.5) + _state(tmp_path, 20, asked=False))

    assert list(_results(tmp_path)) == ["cats-step00000008.safetensors"]


def test_a_model_is_copied_before_a_state_asks_for_it(tmp_path: Path) -> None:
    watched = watch(tmp_path, [])
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "cats-step00000008.safetensors").write_text("model")

    watched.output(step(9, 0.5))

    kept = tmp_path / "checkpoints" / "results" / "cats-step00000008.safetensors"
    deadline = time.monotonic() + 10
    while not kept.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert kept.read_text() == "model"


def test_a_copy_that_finds_no_room_ends_the_run_with_its_reason_and_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_results, "copy_whole", full)
    watched = watch(tmp_path, [])
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "cats-step00000008.safetensors").write_text("model")

    with pytest.raises(OSError, match="No space left"):
        watched.output(step(10, 0.5) + _state(tmp_path, 10, asked=False))

    assert _results(tmp_path) == {}


def test_a_private_runs_failure_names_no_file_and_its_log_no_prompt(tmp_path: Path) -> None:
    said: list[str] = []
    watched = watch(tmp_path, said, private=True)

    watched.output(
        b"INFO  prompt: sks cat in front of\n          the house\n          of her family\n"
        b"INFO  negative_prompt: dog\nINFO  height: 512\n  seed: 1\n" + step(1, math.nan)
    )

    assert said[:2] == ["INFO  height: 512", "  seed: 1"]
    assert watched.error is not None
    assert "a.jpg" not in watched.error.cause


def test_a_growing_loss_is_divergence_by_the_stated_rule(tmp_path: Path) -> None:
    watched = watch(tmp_path, [])

    for number in range(1, 2 * WINDOW):
        watched.output(step(number, 0.1 if number <= WINDOW else 10.0))
        if watched.error:
            break

    assert watched.error is not None
    assert watched.error.kind == "diverging"
    assert number < WINDOW + 3


def test_single_steps_and_a_steady_loss_are_no_divergence() -> None:
    watched = DivergenceWatch()
    losses = [0.02 + 0.4 * (number % 7 == 0) for number in range(300)]

    assert not any(watched.add(loss) for loss in losses)
    assert FACTOR > 1


def test_a_silent_trainer_is_stopped_with_what_the_gpu_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "gpu_state", lambda: "GPU 0: 0 %, 70000 MiB, 81559 MiB")
    watched = watch(tmp_path, [], stall_seconds=0.0)
    watched.output(step(7, 0.5))

    watched.silence()

    assert watched.must_stop()
    assert watched.error is not None
    assert watched.error.kind == "stalled"
    assert "after step 7 (GPU 0: 0 %, 70000 MiB" in watched.error.cause


def test_the_best_validation_is_kept_beside_the_checkpoints(tmp_path: Path) -> None:
    watched = watch(tmp_path, [])
    (tmp_path / "output" / "best").mkdir(parents=True)

    for number, loss in ((2, 0.5), (4, 0.4), (6, 0.6)):
        model = ""
        if number < 6:
            model = f"best/{number:08d}.safetensors"
            (tmp_path / "output" / model).write_text(str(number))
        facts = {"step": number, "loss": loss, "model": model, "waited": 1, "stop": number == 6}
        watched.output(f"{encode('validation', **facts)}\n".encode())

    assert watched.stopped_early
    assert watched.must_stop()
    assert watched.best is not None
    assert (watched.best.step, watched.best.path.read_text()) == (4, "4")


def test_the_best_validation_of_a_kept_state_stays_until_a_state_is_kept_that_knows_a_better_one(
    tmp_path: Path,
) -> None:
    watched = watch(tmp_path, [])
    (tmp_path / "output" / "best").mkdir(parents=True)

    for number, loss in ((2, 0.5), (4, 0.4)):
        model = f"best/{number:08d}.safetensors"
        (tmp_path / "output" / model).write_text(str(number))
        facts = {"step": number, "loss": loss, "model": model, "waited": 0, "stop": False}
        watched.output(f"{encode('validation', **facts)}\n".encode())
    before = sorted(path.name for path in (tmp_path / "checkpoints").glob("best-*"))
    (tmp_path / "states" / "step-00000004").mkdir(parents=True)
    state = {"step": 4, "path": str(tmp_path / "states" / "step-00000004"), "seconds": 0.1}
    watched.output(f"{encode('state', **state, batches=40, asked=False)}\n".encode())

    assert before == ["best-00000002.safetensors", "best-00000004.safetensors"]
    assert [path.name for path in (tmp_path / "checkpoints").glob("best-*")] == before[1:]


def test_a_validation_that_is_no_number_ends_the_training_as_a_loss_does(tmp_path: Path) -> None:
    watched = watch(tmp_path, [])
    facts = {"step": 4, "loss": math.nan, "model": "", "waited": 1, "stop": False}

    watched.output(f"{encode('validation', **facts)}\n".encode())

    assert watched.error is not None
    assert watched.error.kind == "not-finite"
    assert "validation stopped being a number (nan) after step 4" in watched.error.cause


def test_the_best_validation_is_found_behind_one_that_is_no_number(tmp_path: Path) -> None:
    validations = LossHistory(tmp_path, 0, VALIDATION_NAME)
    for number, loss in ((2, math.nan), (4, 0.4)):
        validations.add(step=number, loss=loss)
    (tmp_path / "best-00000004.safetensors").touch()

    best = find_best(LossHistory(tmp_path, 4, VALIDATION_NAME))

    assert best is not None
    assert best.step == 4


@pytest.mark.parametrize(
    ("save", "step_seconds"), [(0.01, 0.3), (2.0, 1.0), (15.0, 2.0), (40.0, 5.0), (200.0, 9.0)]
)
def test_saving_costs_little_and_little_can_be_lost(save: float, step_seconds: float) -> None:
    pause = seconds_between_saves(save, step_seconds)

    assert pause + step_seconds + save <= MOST_SECONDS_LOST
    # Where both bounds cannot hold, the one on what is lost does.
    assert save / (save + pause) <= MOST_SHARE + 1e-9 or pause + step_seconds + save == MOST_SECONDS_LOST
    assert pause >= LEAST_SECONDS


def test_before_a_save_was_measured_the_first_comes_soon() -> None:
    assert seconds_between_saves(None, 1.0) == LEAST_SECONDS


def test_orders_arrive_as_they_were_written(tmp_path: Path) -> None:
    orders = Orders(states="s", save_now="n", done=3, resume="state", exact=True, patience=2)

    orders.write(tmp_path / "orders.json")

    assert read_orders(tmp_path / "orders.json") == orders


def test_a_restart_goes_on_with_the_smoothed_loss() -> None:
    losses = [1.0 / number for number in range(1, 60)]
    whole = SmoothedLoss(None, 0)
    told = [whole.add(loss) for loss in losses]

    resumed = SmoothedLoss(told[29], 30)

    assert [resumed.add(loss) for loss in losses[30:]] == told[30:]
