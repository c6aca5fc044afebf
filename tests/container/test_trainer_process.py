"""What the trainer's process writes reaches the pipe in whole lines: it shares the pipe with other processes."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

CONTAINER = Path(__file__).resolve().parents[2] / "container"
TRAINER_PROCESS = CONTAINER / "kohya_trainer" / "trainer_process.py"
# The folder is on the path of the trainer's own process, too.
TELLING = """
import sys
from kohya_trainer.trainer_events import tell
print("steps:", 34)
sys.stderr.write("\\rsteps: 50%")
tell("step", step=17)
print("caution", 1, file=sys.stderr)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_each_line_and_each_event_is_written_in_one_piece(tmp_path: Path, unbuffered: str) -> None:
    """A socket that keeps what was written apart stands for the pipe."""
    script = tmp_path / "trainer.py"
    script.write_text(TELLING, encoding="utf-8")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        subprocess.run(
            [sys.executable, str(TRAINER_PROCESS), str(script)],
            env={"PYTHONUNBUFFERED": unbuffered},
            stdout=theirs,
            stderr=theirs,
            check=True,
            timeout=60,
        )
        theirs.close()
        pieces = list(iter(lambda: ours.recv(1 << 16), b""))

    assert pieces == [
        b"steps: 34\n",
        b"\rsteps: 50%",
        b'\n@kohya_trainer {"event": "step", "step": 17}\n',
        b"caution 1\n",
    ]
