"""Processes of training jobs and builds: each leads a process group of its own, and none outlives the server."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from local.embedded_aws.registration import run_at_shutdown

_running: set["Child"] = set()
_lock = threading.Lock()
_closed = threading.Event()


class Child:
    """One process group whose output goes, a line at a time, to `on_line`.

    Args:
        argv: the command.
        environment: the whole environment.
        folder: working directory.
        on_line: called with each line of stdout and stderr, without its end, on a thread of its own.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        on_line: Callable[[str], None],
    ) -> None:
        with _lock:
            if _closed.is_set():
                raise RuntimeError("the embedded AWS is stopping")
            self._process = subprocess.Popen(
                list(argv),
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            _running.add(self)
        self._reader = threading.Thread(target=self._read, args=(on_line,), daemon=True)
        self._reader.start()

    def _read(self, on_line: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:  # universal newlines: a carriage return ends a line as well
            on_line(line.rstrip("\n"))

    def wait(self, timeout: float) -> int | None:
        """Exit status (negative: the signal), or None when it still runs after `timeout` seconds.

        What the process left running in its group ends with it.
        """
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self.signal(signal.SIGKILL)
        self._reader.join(timeout=5)
        with _lock:
            _running.discard(self)
        return status

    def terminate(self) -> None:
        """TERM to the process alone, as a container's first process gets it."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send it to the whole group; a group that is gone is left alone."""
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return


def end_all(grace_seconds: float = 2.0) -> None:
    """End every child, TERM first, and start none any more."""
    _closed.set()
    with _lock:
        children = list(_running)
    for child in children:
        child.signal(signal.SIGTERM)
    end = time.monotonic() + grace_seconds
    for child in children:
        if child.wait(max(0.0, end - time.monotonic())) is None:
            child.signal(signal.SIGKILL)
            child.wait(5)


run_at_shutdown(end_all)
