"""`./dev demo` as a person runs it, to its end and interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _demo(temporary: Path) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "PATH": f"{os.environ['TOOLS_BIN']}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "EMBEDDED_AWS_BUILDER": "none",
    }
    command = [f"{os.environ['TOOLS_BIN']}/python", "-P", "-m", "local.cli", "demo"]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _processes_below(folder: Path) -> list[str]:
    """Command lines of running processes that name the folder or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in command or str((process / "cwd").resolve()).startswith(str(folder)):
                found.append(command)
        except OSError:
            continue  # it has ended meanwhile
    return found


def _assert_nothing_is_left(folder: Path) -> None:
    deadline = time.monotonic() + 5  # what was killed at the very end is still seen for a moment
    while _processes_below(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _processes_below(folder) == []
    assert list(folder.iterdir()) == []


def test_the_demo_ends_in_a_model_and_an_email(tmp_path: Path) -> None:
    demo = _demo(tmp_path)
    output, _ = demo.communicate(timeout=480)
    assert demo.returncode == 0, output
    assert "\nRUN steps were not executed: " in output
    assert "REHEARSAL" in output
    assert "Completed (rehearsal)" in output
    assert "\nNO " not in output
    _assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize("seconds", [1, 6, 18])
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, seconds: int) -> None:
    demo = _demo(tmp_path)
    time.sleep(seconds)
    os.killpg(demo.pid, signal.SIGINT)
    demo.communicate(timeout=90)
    assert demo.returncode != 0
    _assert_nothing_is_left(tmp_path)
