"""Runs the trainer's script in a process that ends with the one that started it.

accelerate starts this file in place of the script: a kernel's promise to kill a child with its parent does not reach
the child's children, so that a killed launcher would leave the trainer, and a busy GPU, behind. Nothing of this package
is imported here, because the trainer has modules of the same names.
"""

import ctypes
import runpy
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends; other systems than Linux cannot."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(script: str, *arguments: str) -> None:
    """Goes on as `python script arguments…` would."""
    die_with_parent()
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
