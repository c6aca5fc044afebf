"""Child processes, each with a process group of its own.

The terminal's Ctrl-C so reaches this program alone, which ends its children in order and leaves none behind.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from local.cli.failure import CommandError
from local.cli.interruption import postponed

SECONDS_TO_STOP = 10.0


def run(
    arguments: Sequence[str | Path],
    *,
    what: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Run to the end and return stdout and stderr as one text.

    Raises CommandError with the last 30 lines when the exit code is not 0; `what` begins that message.
    """
    lines: list[str] = []
    child: subprocess.Popen[str] | None = None
    try:
        with postponed():
            child = subprocess.Popen(
                [str(argument) for argument in arguments],
                cwd=folder,
                env=None if environment is None else dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        assert child.stdout is not None
        for line in child.stdout:
            lines.append(line)
            if on_line:
                on_line(line.rstrip("\n"))
        code = child.wait()
    finally:
        if child:
            with postponed():
                stop(child)
    if code != 0:
        raise CommandError(f"{what} failed with exit code {code}:\n\n{''.join(lines[-30:])}")
    return "".join(lines)


def stop(child: subprocess.Popen[str]) -> None:
    """End the child and its group: politely first, then by force."""
    stop_group(child.pid, is_running=lambda: child.poll() is None)
    child.wait()
    if child.stdout:
        child.stdout.close()


def stop_group(leader: int, is_running: Callable[[], bool]) -> None:
    """`leader` gets SIGTERM, so that it can end its own children; the rest of the group is then killed."""
    if is_running():
        send(signal.SIGTERM, leader, os.kill)
        deadline = time.monotonic() + SECONDS_TO_STOP
        while is_running() and time.monotonic() < deadline:
            time.sleep(0.05)
    send(signal.SIGKILL, leader, os.killpg)


def send(number: signal.Signals, process: int, how: Callable[[int, int], None]) -> None:
    # Gone already; macOS says EPERM of a group that holds only zombies.
    with suppress(ProcessLookupError, PermissionError):
        how(process, number)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
