"""The process of the embedded AWS (docs/contracts.md, "The embedded AWS"): started, found again, stopped."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from local.cli import image_machine
from local.cli.failure import CommandError
from local.cli.folders import remove, temporary_folder
from local.cli.interruption import postponed
from local.cli.processes import is_alive, stop, stop_group
from local.cli.repository import ROOT

STATE = ROOT / ".dev" / "up" / "state.json"
SECONDS_TO_START = 60.0
READY = "ready "
HEALTH = "/_ministack/health"


@dataclass(frozen=True)
class Embedded:
    """`home` is the folder that holds everything it writes; `process` leads the process group it lives in."""

    endpoint: str
    home: str
    process: int

    @property
    def mailbox(self) -> Path:
        return Path(self.home) / "mailbox"

    def repository(self, name: str) -> Path:
        """The bare git repository behind the CodeCommit repository `name`."""
        return Path(self.home) / "codecommit" / f"{name}.git"


class Sight(Enum):
    """What is seen of a process that another command has started."""

    RUNNING = "running"
    GONE = "gone"
    UNCERTAIN = "uncertain"
    """Something is alive, and nothing proves that it is, or is not, the embedded AWS."""


@contextmanager
def temporary(builder: Mapping[str, str] | None = None) -> Iterator[Embedded]:
    """An embedded AWS that is gone afterwards, with its folder, however the block ends.

    `builder`: of image_machine; without it, what the environment asks for.
    """
    with temporary_folder("embedded-aws-") as home:
        child: subprocess.Popen[str] | None = None
        try:
            with postponed():
                child = start(home, builder)
            yield Embedded(wait_until_ready(home, child), str(home), child.pid)
        finally:
            if child:
                with postponed():
                    stop(child)


def start(home: Path, builder: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    home.mkdir(parents=True, exist_ok=True)
    with log(home).open("w") as output:
        return subprocess.Popen(
            [interpreter(), "-P", "-m", "local.embedded_aws"],
            cwd=home,
            env={
                **os.environ,
                **(image_machine.chosen(os.environ) if builder is None else builder),
                "EMBEDDED_AWS_HOME": str(home),
                "EMBEDDED_AWS_PORT": "0",
                "PYTHONPATH": str(ROOT),
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def interpreter() -> str:
    """Python of the emulator's own virtual environment, which ./dev made; the functions run on it too."""
    return os.environ.get("EMBEDDED_AWS_PYTHON") or sys.executable


def log(home: Path) -> Path:
    return home / "embedded-aws.log"


def wait_until_ready(home: Path, child: subprocess.Popen[str]) -> str:
    """The endpoint that the process announces. Raises CommandError with the end of its log."""
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        ended = child.poll() is not None
        for line in log(home).read_text(errors="replace").splitlines():
            if line.startswith(READY):
                return line.removeprefix(READY).strip()
        if ended:
            break
        time.sleep(0.05)
    raise CommandError(f"the embedded AWS did not start:\n\n{tail(log(home))}")


def tail(file: Path, lines: int = 30) -> str:
    """The last lines of a log; empty where there is none."""
    if not file.is_file():
        return ""
    return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def remember(embedded: Embedded) -> None:
    STATE.parent.mkdir(parents=True, exist_ok=True)
    STATE.write_text(json.dumps(asdict(embedded)), encoding="utf-8")


def running() -> Embedded | None:
    """What `./dev up` left running, or None when nothing of it is alive.

    Raises CommandError when that cannot be told: who cannot see the embedded AWS must neither remove its folder
    nor go on to another account.
    """
    found = remembered()
    if found is None:
        return None
    match sight_of(found):
        case Sight.RUNNING:
            return found
        case Sight.GONE:
            return None
    raise CommandError(
        f"{STATE} speaks of process {found.process} at {found.endpoint}, which is alive, but `ps` does not show "
        f"that it is the embedded AWS. If it is, end it (kill {found.process}); then remove {STATE.parent}."
    )


def remembered() -> Embedded | None:
    """What `./dev up` has written down. Raises CommandError when it cannot be read."""
    if not STATE.exists():
        return None
    try:
        return Embedded(**json.loads(STATE.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise CommandError(
            f"{STATE} cannot be read ({error}). End the embedded AWS if it runs, then remove {STATE.parent}."
        ) from error


def sight_of(embedded: Embedded) -> Sight:
    """Process ids are used again, so one that is alive proves nothing by itself."""
    if not is_alive(embedded.process):
        return Sight.GONE
    command = command_line(embedded.process)
    if "local.embedded_aws" in command:
        return Sight.RUNNING
    return Sight.UNCERTAIN if not command or answers(embedded.endpoint) else Sight.GONE


def command_line(process: int) -> str:
    """As `ps` shows it; empty where it shows none. Without -ww it would cut the line at $COLUMNS."""
    try:
        answer = subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(process)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return answer.stdout.strip()


def answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(endpoint + HEALTH, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def shut_down(embedded: Embedded) -> None:
    """Stop what `./dev up` started, perhaps from another process, and remove its folder."""
    stop_group(embedded.process, is_running=lambda: sight_of(embedded) is Sight.RUNNING)
    forget()


def forget() -> None:
    """Remove the folder of `./dev up` with all that is in it."""
    remove(STATE.parent)
