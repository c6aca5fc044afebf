"""Runs the trainer as a process group: pumps its merged output, lets it save on a signal, bounds memory
and waiting.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from kohya_trainer.trainer_process import die_with_parent

# SageMaker kills 120 s after SIGTERM. The trainer has this long to reach the end of a step and save its state, …
SECONDS_TO_SAVE = 85.0
# … and this long to end; what is left is for the state's marker and the failure file.
SECONDS_TO_END = 100.0
# A trainer that is beyond saving (NaN) is not waited for.
SECONDS_TO_STOP = 5.0
SECONDS_OF_SILENCE = 0.5


@dataclass(frozen=True)
class Ended:
    """How the trainer's process ended; negative `code` is the signal that killed it."""

    code: int
    interrupted: bool
    seconds: float


class Follower(Protocol):
    """Who follows the trainer."""

    def output(self, chunk: bytes) -> None:
        """A chunk of what the trainer wrote."""

    def silence(self) -> None:
        """Nothing has come for SECONDS_OF_SILENCE."""

    def must_stop(self) -> bool:
        """Going on is useless."""

    def ask_to_save(self) -> bool:
        """The job is interrupted: whether it is worth waiting for a state."""

    def has_saved(self) -> bool:
        """The state that was asked for is kept, or cannot be had."""


def run_trainer(
    arguments: Sequence[str], folder: Path, variables: Mapping[str, str], follower: Follower
) -> Ended:
    """Until the trainer ends, the follower gives it up, or the job is interrupted."""
    began = time.monotonic()
    process = subprocess.Popen(
        arguments,
        cwd=folder,
        # COLUMNS: Kohya's logger would wrap its lines at 80 columns, and failures are known by their lines.
        env={**variables, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "COLUMNS": "300"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        # In a session of its own; if this process is killed outright, the GPU must not stay busy.
        preexec_fn=die_with_parent if sys.platform == "linux" else None,
    )
    assert process.stdout is not None  # PIPE was asked for
    descriptor = process.stdout.fileno()
    deadline: float | None = None
    saving_until: float | None = None
    with process.stdout, _received_signals() as received, _ended_with(process):
        while True:
            readable, _, _ = select.select([descriptor], [], [], SECONDS_OF_SILENCE)
            chunk = os.read(descriptor, 1 << 16) if readable else b""
            if chunk:
                follower.output(chunk)
            elif readable or process.poll() is not None:
                # The end of output, or a grandchild that outlives the trainer and holds the pipe.
                break
            else:
                follower.silence()
            now = time.monotonic()
            if received and saving_until is None:
                saving_until = now + (SECONDS_TO_SAVE if follower.ask_to_save() else 0)
            done_saving = saving_until is not None and (follower.has_saved() or now > saving_until)
            if deadline is None and (follower.must_stop() or done_saving):
                _signal_group(process, signal.SIGTERM)
                # A trainer that has saved, or is beyond saving, is not waited for.
                wait = SECONDS_TO_STOP if follower.must_stop() or follower.has_saved() else SECONDS_TO_END
                deadline = (
                    now + wait if saving_until is None else min(now + wait, received[0] + SECONDS_TO_END)
                )
            if deadline is not None and time.monotonic() > deadline:
                break
        code = _wait(process, deadline)
    return Ended(code=code, interrupted=bool(received), seconds=time.monotonic() - began)


def _wait(process: "subprocess.Popen[bytes]", deadline: float | None) -> int:
    """Whatever of the group is still there once the trainer has ended, or is out of time, is killed."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=SECONDS_TO_END if deadline is None else max(0.1, deadline - time.monotonic()))
    _signal_group(process, signal.SIGKILL)
    return process.wait()


@contextmanager
def _ended_with(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """A follower that fails, as on a full disk, leaves no trainer that goes on filling it."""
    try:
        yield
    except BaseException:
        _wait(process, time.monotonic())
        raise


@contextmanager
def _received_signals() -> Iterator[list[float]]:
    """When SIGTERM and SIGINT arrived. The trainer does not get them: it would end before it could save."""
    received: list[float] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(time.monotonic())

    previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the group has ended
        os.killpg(process.pid, number)
