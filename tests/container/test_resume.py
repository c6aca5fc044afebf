"""Where a restarted trainer must begin: its loop, simulated."""

from pathlib import Path

import pytest

from kohya_trainer.options import load_table
from kohya_trainer.resume import Loop, ResumePoint, expected_steps, resume_point, save_interval


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (5, 0),  # within the first epoch the trainer's average is right
        (20, 0),  # on the border of two epochs nothing is passed over
        (25, 15),
    ],
)
def test_the_steps_with_a_diluted_average_are_those_left_of_a_later_epoch(done: int, expected: int) -> None:
    point = resume_point(Path("state"), done, Loop(batches=20, accumulation=1, total=60), hooked=False)

    assert point is not None
    assert point.diluted == expected


@pytest.mark.parametrize("total", [40, 34, 7])
@pytest.mark.parametrize("batches", [1, 5, 20])
def test_a_resumed_loop_makes_exactly_the_missing_steps(total: int, batches: int) -> None:
    loop = Loop(batches=batches, accumulation=1, total=total)
    beyond = -total % batches  # steps of the last epoch that are not wanted
    for done in range(1, total):
        point = resume_point(Path("state"), done, loop, hooked=False)
        if point is None:  # the trainer refuses an initial_step as large as it would need
            assert beyond
            assert done + beyond >= total
            continue
        assert loop.steps_made(point.initial_step, point.skip) == total - done
        if not beyond:
            assert point.initial_step == done


def test_nothing_is_resumed_from_a_finished_state() -> None:
    for hooked in (False, True):
        assert resume_point(Path("state"), 40, Loop(batches=20, accumulation=1, total=40), hooked) is None


def test_with_the_hooks_every_step_can_be_gone_on_from_at_its_place_in_the_epoch() -> None:
    for done in range(1, 34):
        point = resume_point(Path("state"), done, Loop(batches=20, accumulation=1, total=34), hooked=True)

        assert point == ResumePoint(Path("state"), done, done, done % 20, skip=True, exact=True)
        # As the trainer itself works it out.
        assert Loop(batches=20, accumulation=1, total=34).start(done, skip=True) == (done // 20, done % 20)


def test_with_accumulation_the_hooks_go_on_exactly_from_the_end_of_an_epoch() -> None:
    # Also where the last epoch is broken off, which the trainer's own count could not.
    loop = Loop(batches=20, accumulation=4, total=38)

    for done in (5, 10, 35):
        point = resume_point(Path("s"), done, loop, hooked=True)
        assert point == ResumePoint(Path("s"), done, done, counter_start=0, skip=False, exact=True)
        assert loop.start(done, skip=False) == (done // 5, 0)
        assert resume_point(Path("s"), done, loop, hooked=False) is None


@pytest.mark.parametrize(
    ("options", "planned", "expected"),
    [
        ({"max_train_epochs": 8}, 104, 104),
        ({"max_train_epochs": 8, "train_batch_size": 2}, None, 8 * 13),
        ({"max_train_epochs": 3, "train_batch_size": 2, "gradient_accumulation_steps": 2}, None, 3 * 7),
        ({"max_train_steps": 50}, None, 50),
        ({}, None, 1600),
    ],
)
def test_the_number_of_steps_is_known_before_the_trainer_tells_it(
    options: dict[str, int], planned: int | None, expected: int
) -> None:
    assert expected_steps(options, load_table("v25.2.2"), planned, examples=26) == expected


def test_states_are_saved_about_ten_times_a_run_and_at_epoch_ends_with_accumulation() -> None:
    assert [save_interval(total) for total in (5, 120, 1600, 100_000)] == [10, 12, 160, 200]
    assert save_interval(120, epochs=8, accumulation=2) == 15
