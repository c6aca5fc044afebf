"""What `./dev up` left running is found again, and what cannot be told apart is left alone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.cli import account, embedded, up
from local.cli.embedded import Embedded, Sight
from local.cli.failure import CommandError

NAMED = [sys.executable, "-c", "import time; time.sleep(60)", "x" * 300, "local.embedded_aws"]
OTHER = [sys.executable, "-c", "import time; time.sleep(60)"]
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    state = tmp_path / "up" / "state.json"
    monkeypatch.setattr(embedded, "STATE", state)
    monkeypatch.setattr(up, "HOME", tmp_path / "up" / "home")
    return state


@pytest.fixture
def start() -> Iterator[list[subprocess.Popen[bytes]]]:
    children: list[subprocess.Popen[bytes]] = []
    yield children
    for child in children:
        child.kill()
        child.wait()


def remembered(child: subprocess.Popen[bytes]) -> Embedded:
    found = Embedded(NOBODY, "/nowhere", child.pid)
    embedded.remember(found)
    return found


def ended() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_long_command_line_is_recognised_in_a_narrow_terminal(
    state: Path, start: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    start.append(subprocess.Popen(NAMED))
    assert embedded.sight_of(remembered(start[0])) is Sight.RUNNING
    assert embedded.running() == remembered(start[0])


def test_another_program_with_the_same_process_id_is_not_it(
    state: Path, start: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "answers", lambda endpoint: False)
    start.append(subprocess.Popen(OTHER))
    assert embedded.sight_of(remembered(start[0])) is Sight.GONE
    assert up.down() == 0
    assert start[0].poll() is None
    assert not state.parent.exists()


@pytest.mark.parametrize("blind", ["an endpoint that answers", "no ps"])
def test_what_is_alive_and_cannot_be_identified_is_left_alone(
    state: Path, start: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, blind: str
) -> None:
    monkeypatch.setattr(embedded, "answers", lambda endpoint: blind != "no ps")
    if blind == "no ps":
        monkeypatch.setenv("PATH", "/nowhere")
    start.append(subprocess.Popen(OTHER))
    remembered(start[0])
    for command in (up.down, up.up, account.account_in_use):
        with pytest.raises(CommandError, match=f"process {start[0].pid} .* is alive"):
            command()
    assert state.exists()
    assert start[0].poll() is None


def test_a_server_that_is_gone_never_leads_to_a_real_account(state: Path) -> None:
    embedded.remember(Embedded(NOBODY, "/nowhere", ended()))
    with pytest.raises(CommandError, match="not running any more"):
        account.account_in_use()
    assert up.down() == 0
    assert account.account_in_use().embedded is None


def test_a_state_that_cannot_be_read_is_neither_believed_nor_removed(state: Path) -> None:
    state.parent.mkdir()
    state.write_text("{")
    for command in (up.down, account.account_in_use):
        with pytest.raises(CommandError, match="cannot be read"):
            command()
    assert state.exists()


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    assert embedded.tail(log) == ""
    log.write_text("".join(f"line {number}{os.linesep}" for number in range(50)))
    assert embedded.tail(log, 2) == "line 48\nline 49"
