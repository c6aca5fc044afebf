"""Runs the trainer as a process group: pumps its merged output, forwards signals, bounds memory and
waiting.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from kohya_trainer.trainer_process import die_with_parent

# SageMaker kills 120 s after SIGTERM; what is left is for writing the failure file.
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


def run_trainer(
    arguments: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    on_output: Callable[[bytes], None],
    on_silence: Callable[[], None],
    must_stop: Callable[[], bool],
) -> Ended:
    """`on_output` gets each chunk as it arrives, `on_silence` is called when none does; `must_stop` ends
    the run.
    """
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
    with process.stdout, _forwarded_signals(process) as received:
        while True:
            readable, _, _ = select.select([descriptor], [], [], SECONDS_OF_SILENCE)
            chunk = os.read(descriptor, 1 << 16) if readable else b""
            if chunk:
                on_output(chunk)
            elif readable or process.poll() is not None:
                # The end of output, or a grandchild that outlives the trainer and holds the pipe.
                break
            else:
                on_silence()
            if deadline is None and (received or must_stop()):
                _signal_group(process, signal.SIGTERM)
                deadline = time.monotonic() + (SECONDS_TO_END if received else SECONDS_TO_STOP)
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
def _forwarded_signals(process: "subprocess.Popen[bytes]") -> Iterator[list[int]]:
    """SIGTERM and SIGINT go to the trainer's group; the list holds those that arrived."""
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        _signal_group(process, signal.SIGTERM)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the group has ended
        os.killpg(process.pid, number)
