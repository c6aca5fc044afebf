"""The process of the embedded AWS (docs/contracts.md, "The embedded AWS"): started, found again, stopped."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from local.cli.failure import CommandError
from local.cli.folders import remove, temporary_folder
from local.cli.interruption import postponed
from local.cli.processes import is_alive, stop, stop_group

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".dev" / "up" / "state.json"
SECONDS_TO_START = 60.0
READY = "ready "


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


@contextmanager
def temporary() -> Iterator[Embedded]:
    """An embedded AWS that is gone afterwards, with its folder, however the block ends."""
    with temporary_folder("embedded-aws-") as home:
        child: subprocess.Popen[str] | None = None
        try:
            with postponed():
                child = start(home)
            yield Embedded(wait_until_ready(home, child), str(home), child.pid)
        finally:
            if child:
                with postponed():
                    stop(child)


def start(home: Path) -> subprocess.Popen[str]:
    home.mkdir(parents=True, exist_ok=True)
    with log(home).open("w") as output:
        return subprocess.Popen(
            [interpreter(), "-P", "-m", "local.embedded_aws"],
            cwd=home,
            env={
                **os.environ,
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
    lines = log(home).read_text(errors="replace").splitlines()[-30:]
    raise CommandError("the embedded AWS did not start:\n\n" + "\n".join(lines))


def remember(embedded: Embedded) -> None:
    STATE.parent.mkdir(parents=True, exist_ok=True)
    STATE.write_text(json.dumps(asdict(embedded)), encoding="utf-8")


def running() -> Embedded | None:
    """What `./dev up` left running, or None."""
    if not STATE.exists():
        return None
    embedded = Embedded(**json.loads(STATE.read_text(encoding="utf-8")))
    return embedded if is_alive(embedded.process) and is_embedded_aws(embedded.process) else None


def is_embedded_aws(process: int) -> bool:
    """Whether that process id, read from a file, still is what it was: ids are used again."""
    command = subprocess.run(
        ["ps", "-o", "args=", "-p", str(process)], capture_output=True, text=True, check=False
    )
    return "local.embedded_aws" in command.stdout


def shut_down(embedded: Embedded) -> None:
    """Stop what `./dev up` started, perhaps from another process, and remove its folder."""
    stop_group(
        embedded.process, is_running=lambda: is_alive(embedded.process) and is_embedded_aws(embedded.process)
    )
    forget()


def forget() -> None:
    """Remove the folder of `./dev up` with all that is in it."""
    remove(STATE.parent)
