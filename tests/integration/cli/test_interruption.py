"""Ctrl-C at any moment leaves no process and no temporary folder.

A stand-in for the embedded AWS is enough: what is shown is who ends whom. It starts a child of its own, as
the real one starts training jobs, and can be told to be slow or deaf.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local.cli.processes import is_alive

ROOT = Path(__file__).resolve().parents[3]
STAND_IN = """
import os, signal, subprocess, sys, time
from pathlib import Path
home = Path(os.environ["EMBEDDED_AWS_HOME"])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path(os.environ["TEST_PROCESSES"]).write_text(f"{os.getpid()} {child.pid}")
(home / "something").write_text("written")
if os.environ["TEST_MANNER"] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.environ["TEST_MANNER"] != "slow":
    print("ready http://127.0.0.1:9", flush=True)
time.sleep(600)
"""
COMMAND = """
print("begun", flush=True)
import sys, time
from local.cli import embedded, processes
from local.cli.interruption import Interrupted, interruptible
processes.SECONDS_TO_STOP = 0.5
try:
    with interruptible(), embedded.temporary() as server:
        print("up", flush=True)
        program = ["sh", "-c", "sleep 600 & echo $! $$; wait"]
        processes.run(program, what="sh", folder=".", on_line=lambda line: print(line, flush=True))
except Interrupted:
    sys.exit(130)
"""


class Command:
    """A command in a process of its own, with $TMPDIR and its children under observation."""

    def __init__(self, folder: Path, manner: str) -> None:
        self.temporary = folder / "tmp"
        self.processes = folder / "processes"
        stand_in = folder / "python"
        (folder / "stand_in.py").write_text(STAND_IN)
        stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder}/stand_in.py" local.embedded_aws\n')
        stand_in.chmod(0o755)
        self.temporary.mkdir()
        self.child = subprocess.Popen(
            [sys.executable, "-c", COMMAND],
            cwd=folder,
            env={
                # Not measured: coverage starts in a .pth file, in which Python swallows a KeyboardInterrupt.
                **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
                "TMPDIR": str(self.temporary),
                "EMBEDDED_AWS_PYTHON": str(stand_in),
                "PYTHONPATH": str(ROOT),
                "TEST_PROCESSES": str(self.processes),
                "TEST_MANNER": manner,
            },
            stdout=subprocess.PIPE,
            text=True,
            # A shell starts what it puts into the background with SIGINT ignored, and these tests with it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        # Not before: a Python that is interrupted in its own start ends with code 1, on a slow machine for long.
        assert self.line() == "begun"

    def line(self) -> str:
        assert self.child.stdout is not None
        return self.child.stdout.readline().strip()

    def started(self) -> list[int]:
        """The process ids of the stand-in and of its child."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.processes.exists() and len(self.processes.read_text().split()) == 2:
                return [int(number) for number in self.processes.read_text().split()]
            time.sleep(0.02)
        raise AssertionError("the stand-in did not start")

    def interrupt(self, number: signal.Signals = signal.SIGINT, times: int = 1) -> int:
        for _ in range(times):
            self.child.send_signal(number)
            time.sleep(0.1)
        code = self.child.wait(timeout=20)
        assert self.child.stdout is not None
        self.child.stdout.close()
        return code


def gone(process: int) -> bool:
    """Dead, or a zombie that only waits for the machine's first process."""
    if not is_alive(process):
        return True
    answer = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip().startswith("Z") or not answer.stdout.strip()


def assert_nothing_is_left(command: Command, processes: list[int]) -> None:
    deadline = time.monotonic() + 5
    while not all(gone(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [process for process in processes if not gone(process)] == []
    assert list(command.temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_while_a_program_runs(tmp_path: Path, number: signal.Signals) -> None:
    command = Command(tmp_path, "willing")
    assert command.line() == "up"
    processes = command.started() + [int(each) for each in command.line().split()]
    assert not any(gone(process) for process in processes)
    assert command.interrupt(number) == 130
    assert_nothing_is_left(command, processes)


def test_while_the_embedded_aws_is_still_starting(tmp_path: Path) -> None:
    command = Command(tmp_path, "slow")
    processes = command.started()
    assert command.interrupt() == 130
    assert_nothing_is_left(command, processes)


def test_an_embedded_aws_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    command = Command(tmp_path, "deaf")
    assert command.line() == "up"
    processes = command.started()
    assert command.interrupt() == 130
    assert_nothing_is_left(command, processes)


def test_an_impatient_person_cannot_cut_the_cleaning_up_short(tmp_path: Path) -> None:
    command = Command(tmp_path, "deaf")
    assert command.line() == "up"
    processes = command.started()
    assert command.interrupt(times=4) == 130
    assert_nothing_is_left(command, processes)


@pytest.mark.parametrize("delay", [0, 0.1, 0.2, 0.3, 0.45])
def test_at_any_moment_of_the_start(tmp_path: Path, delay: float) -> None:
    """Before its handlers are in place the program ends as Python does."""
    command = Command(tmp_path, "willing")
    time.sleep(delay)
    assert command.interrupt() in (130, -signal.SIGINT)
    processes = (
        [int(number) for number in command.processes.read_text().split()]
        if command.processes.exists()
        else []
    )
    assert_nothing_is_left(command, processes)
