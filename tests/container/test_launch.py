"""How long an interrupted trainer is waited for: SageMaker kills everything 120 s after its SIGTERM."""

import errno
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from kohya_trainer import launch
from kohya_trainer.launch import SECONDS_TO_END, SECONDS_TO_SAVE, SECONDS_TO_STOP, Ended, run_trainer

# Deaf to SIGTERM, as one that is inside a long computation is.
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('begun', flush=True); time.sleep(60)"


class Follower:
    """Interrupts the job once the trainer has begun; `saves_after` seconds later its state is kept."""

    def __init__(self, saves_after: float | None = None, broken: bool = False) -> None:
        self._saves_after, self._broken = saves_after, broken
        self._began: float | None = None
        self.asked = False

    def output(self, chunk: bytes) -> None:
        if self._began is None:
            self._began = time.monotonic()
            if not self._broken:
                threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()

    def silence(self) -> None: ...

    def must_stop(self) -> bool:
        return self._broken and self._began is not None

    def ask_to_save(self) -> bool:
        self.asked = True
        return True

    def has_saved(self) -> bool:
        if self._saves_after is None or self._began is None:
            return False
        return time.monotonic() - self._began > self._saves_after


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """All times a fiftieth."""
    for name, seconds in (
        ("SECONDS_TO_SAVE", SECONDS_TO_SAVE),
        ("SECONDS_TO_END", SECONDS_TO_END),
        ("SECONDS_TO_STOP", SECONDS_TO_STOP),
    ):
        monkeypatch.setattr(launch, name, seconds / 50)
    monkeypatch.setattr(launch, "SECONDS_OF_SILENCE", 0.05)


def run(tmp_path: Path, follower: Follower) -> Ended:
    return run_trainer([sys.executable, "-c", DEAF], tmp_path, dict(os.environ), follower)


def test_the_times_leave_sagemaker_room_for_marker_and_failure_file() -> None:
    assert SECONDS_TO_SAVE < SECONDS_TO_END < 120 - 10


@pytest.mark.usefixtures("hurried")
def test_a_trainer_that_cannot_save_in_time_is_ended_and_the_last_state_stands(tmp_path: Path) -> None:
    follower = Follower()

    ended = run(tmp_path, follower)

    assert follower.asked
    assert ended.interrupted
    assert ended.code == -signal.SIGKILL
    assert ended.seconds > SECONDS_TO_SAVE / 50


@pytest.mark.usefixtures("hurried")
def test_a_trainer_that_has_saved_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECONDS_TO_SAVE", "SECONDS_TO_END"):
        monkeypatch.setattr(launch, name, 300.0)  # it would end by itself before, with 0

    ended = run(tmp_path, Follower(saves_after=0.1))

    assert ended.interrupted
    assert ended.code == -signal.SIGKILL


@pytest.mark.usefixtures("hurried")
def test_one_that_is_beyond_saving_is_not_asked_to(tmp_path: Path) -> None:
    follower = Follower(broken=True)

    ended = run(tmp_path, follower)

    assert not follower.asked
    assert not ended.interrupted
    assert ended.code == -signal.SIGKILL


def test_a_follower_that_fails_leaves_no_trainer(tmp_path: Path) -> None:
    class Full(Follower):
        def output(self, chunk: bytes) -> None:
            self.trainer = int(chunk)
            raise OSError(errno.ENOSPC, "No space left on device")

    follower = Full()
    deaf = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True)"

    with pytest.raises(OSError, match="No space left"):
        run_trainer([sys.executable, "-c", f"{deaf}; time.sleep(60)"], tmp_path, dict(os.environ), follower)

    with pytest.raises(ProcessLookupError):
        os.kill(follower.trainer, 0)
