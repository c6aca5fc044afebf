"""tqdm's real output, in any pieces, as events; and the run's own count of steps."""

import io
import random
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from kohya_trainer.checkpoints import CheckpointStore
from kohya_trainer.failure import LINES_CLASSIFIED
from kohya_trainer.learning_rate import learning_rate
from kohya_trainer.loss_history import VALIDATION_NAME, LossHistory
from kohya_trainer.progress import LARGEST_PENDING, LONGEST_LINE, Bar, Line, OutputReader
from kohya_trainer.resume import ResumePoint
from kohya_trainer.run_so_far import RunSoFar
from kohya_trainer.watch import TrainingWatch


def tqdm_output(steps: int = 30, ascii: bool = False) -> bytes:  # noqa: A002
    """Written by tqdm as Kohya uses it: a log line in the middle, each step drawn twice."""
    screen = io.StringIO()
    bar = tqdm(range(steps), smoothing=0, desc="steps", file=screen, mininterval=0, ascii=ascii, ncols=90)
    for step in range(steps):
        bar.update(1)
        bar.set_postfix(avr_loss=1.0 / (step + 1))
        if step == 9:
            screen.write("\nsaving checkpoint: /out/cats-step00000010.safetensors\n")
    bar.close()
    return screen.getvalue().encode()


def read(content: bytes, pieces: list[int]) -> list[Bar | Line]:
    reader, events, start = OutputReader(), [], 0
    for end in [*pieces, len(content)]:
        events += reader.feed(content[start:end])
        start = end
    return events + reader.close()


def steps_and_losses(events: list[Bar | Line]) -> dict[int, float | None]:
    return {event.done: event.loss for event in events if isinstance(event, Bar)}


@pytest.mark.parametrize("ascii", [False, True])
def test_each_step_ends_with_its_own_loss(ascii: bool) -> None:  # noqa: A002
    events = read(tqdm_output(ascii=ascii), [])

    told = steps_and_losses(events)
    assert list(told) == list(range(31))
    assert told[7] == pytest.approx(1 / 7, rel=1e-2)
    assert {event.total for event in events if isinstance(event, Bar)} == {30}
    assert [event.text for event in events if isinstance(event, Line)] == [
        "saving checkpoint: /out/cats-step00000010.safetensors"
    ]


@pytest.mark.parametrize("seed", range(20))
def test_it_does_not_matter_how_the_bytes_are_cut(seed: int) -> None:
    content = tqdm_output()
    cuts = sorted(random.Random(seed).sample(range(1, len(content)), 40))

    events = read(content, cuts)

    assert steps_and_losses(events) == steps_and_losses(read(content, []))
    assert [event.text for event in events if isinstance(event, Line)] == [
        "saving checkpoint: /out/cats-step00000010.safetensors"
    ]


@pytest.mark.parametrize(
    ("text", "bar"),
    [
        ("steps:  12%|█▏ | 12/100 [00:06<00:44,  2.00it/s, avr_loss=0.123]", Bar(12, 100, 0.123, 0.5)),
        ("steps:   1%|  | 1/100 [1:02:03<99:00:00,  2.50s/it, avr_loss=nan]", Bar(1, 100, float("nan"), 2.5)),
        ("steps:   0%|          | 0/100 [00:00<?, ?it/s]", Bar(0, 100, None, None)),
        (
            "steps:   3%|▎| 3/100 [00:01<00:40,  2.00it/s, Keys Scaled=2, avr_loss=1e-5]",
            Bar(3, 100, 1e-5, 0.5),
        ),
    ],
)
def test_bars_in_every_form(text: str, bar: Bar) -> None:
    (event,) = OutputReader().feed(f"\r{text}".encode())

    assert repr(event) == repr(bar)  # nan is not equal to itself


def test_a_log_line_right_behind_a_bar_is_not_lost() -> None:
    events = read(
        b"\rsteps:  50%|#| 1/2 [00:01<00:01,  1.00s/it, avr_loss=0.5]INFO saving state at step 1\n", []
    )

    assert events == [Bar(1, 2, 0.5, 1.0), Line("INFO saving state at step 1")]


def test_other_bars_are_transient_and_endless_lines_are_bounded() -> None:
    events = OutputReader().feed(b"\rcaching latents: 10%|#  | 1/10\rcaching latents: 20%|## | 2/10\r")
    assert all(isinstance(event, Line) and event.transient for event in events)

    endless = OutputReader().feed(b"x" * (LARGEST_PENDING + 1))
    assert endless == [Line("x" * LONGEST_LINE)]


def watch(tmp_path: Path, said: list[str], resume: ResumePoint | None = None) -> TrainingWatch:
    store = CheckpointStore(tmp_path / "checkpoints", "fingerprint")
    history = LossHistory(tmp_path / "checkpoints", resume.done if resume else 0)
    validations = LossHistory(tmp_path / "checkpoints", 0, VALIDATION_NAME)
    return TrainingWatch(
        {"learning_rate": 1e-4},
        tmp_path / "output",
        RunSoFar(store, resume, history, validations),
        None,
        60.0,
        False,
        False,
        said.append,
    )


def bar(done: int, total: int, loss: str) -> bytes:
    return f"\rsteps:  1%|# | {done}/{total} [00:01<00:01,  2.00it/s, avr_loss={loss}]".encode()


def test_a_step_is_told_once_with_the_loss_of_its_second_drawing(tmp_path: Path) -> None:
    said: list[str] = []
    watched = watch(tmp_path, said)

    for chunk in (bar(1, 4, "0.9"), bar(2, 4, "0.9"), bar(2, 4, "0.8"), bar(2, 4, "0.8")):
        watched.output(chunk)
    watched.close()

    assert said == [
        "progress step=1 total=4 loss=0.9 lr=0.0001 seconds_per_step=0.5 eta_seconds=2",
        "progress step=2 total=4 loss=0.8 lr=0.0001 seconds_per_step=0.5 eta_seconds=1",
    ]


def test_steps_go_on_counting_after_a_restart_though_the_trainers_bar_does_not(tmp_path: Path) -> None:
    said: list[str] = []
    point = ResumePoint(state=tmp_path, done=25, initial_step=25, counter_start=5, skip=True)
    watched = watch(tmp_path, said, point)

    watched.output("  total optimization steps / 学習ステップ数: 40\n".encode())
    watched.output(bar(1, 35, "0.5"))
    watched.close()

    assert said[1].startswith("progress step=26 total=40 loss=0.5 ")


@pytest.mark.parametrize("loss", ["nan", "inf"])
def test_a_broken_loss_demands_the_stop_at_its_first_drawing(tmp_path: Path, loss: str) -> None:
    said: list[str] = []
    watched = watch(tmp_path, said)

    watched.output(bar(3, 4, "0.5"))
    assert not watched.must_stop()
    watched.output(bar(4, 4, loss))

    assert watched.must_stop()
    assert watched.error is not None
    assert "at step 4" in watched.error.cause
    assert said[-1].startswith(f"progress step=4 total=4 loss={loss} ")


def test_the_zero_that_the_trainer_counts_after_a_restart_is_taken_out_of_its_average(tmp_path: Path) -> None:
    said: list[str] = []
    point = ResumePoint(tmp_path, done=25, initial_step=25, counter_start=5, skip=True, diluted=2)
    watched = watch(tmp_path, said, point)

    # Losses of 0.9 each, as LossRecorder tells them: 0.9 / 2, 1.8 / 3, and from the next epoch on without the zero.
    for done, average in ((1, "0.45"), (2, "0.6"), (3, "0.9")):
        watched.output(bar(done, 15, average))
    watched.close()

    assert [text.split(" loss=")[1].split()[0] for text in said] == ["0.9", "0.9", "0.9"]


def test_the_padding_of_the_trainers_logger_is_not_kept(tmp_path: Path) -> None:
    said: list[str] = []

    watch(tmp_path, said).output(
        b"2026-11-23 14:15:25 ERROR    Error loading" + b" " * 200 + b"train_util.py:9\n"
    )

    assert said == ["2026-11-23 14:15:25 ERROR  Error loading  train_util.py:9"]


def test_the_log_keeps_its_last_lines_only(tmp_path: Path) -> None:
    watched = watch(tmp_path, [])

    for number in range(1000):
        watched.output(f"line {number}\n".encode())

    assert watched.lines == [f"line {number}" for number in range(1000 - LINES_CLASSIFIED, 1000)]


def test_the_history_drops_the_lost_steps_and_a_half_written_line(tmp_path: Path) -> None:
    history = LossHistory(tmp_path, 0)
    for step in (1, 2, 3):
        history.add(step=step, loss=0.5)
    with history.path.open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "lo')

    LossHistory(tmp_path, 2)

    assert len(history.path.read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.parametrize(
    ("options", "step", "expected"),
    [
        ({"learning_rate": 1e-4}, 50, 1e-4),
        ({"learning_rate": 1e-4, "unet_lr": 5e-5}, 50, 5e-5),
        ({"learning_rate": 1e-4, "lr_scheduler": "linear"}, 25, 7.5e-5),
        ({"learning_rate": 1e-4, "lr_scheduler": "cosine"}, 50, 5e-5),
        ({"learning_rate": 1e-4, "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 0.1}, 5, 5e-5),
        ({"learning_rate": 1.0, "optimizer_type": "Prodigy"}, 5, None),
        ({"learning_rate": 1e-4, "lr_scheduler": "piecewise_constant"}, 5, None),
    ],
)
def test_the_learning_rate_is_told_where_it_is_a_formula(
    options: Any, step: int, expected: float | None
) -> None:
    assert learning_rate(options, step, 100) == (None if expected is None else pytest.approx(expected))
