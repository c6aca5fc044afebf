"""Runs the trainer's script, followed and made faster by this package, in a process that ends with the one that
started it.

accelerate starts this file in place of the script: a kernel's promise to kill a child with its parent does not reach
the child's children, so that a killed launcher would leave the trainer, and a busy GPU, behind. This package's folder
is not on the path, because the trainer has modules of the same names; its parent is, behind everything else.
"""

import ctypes
import io
import os
import runpy
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends; other systems than Linux cannot."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def write_whole_lines() -> None:
    """Several processes write to one output. Unbuffered, a print's newline is written apart from its text, and what
    another process says comes between them: `total optimization steps: 34` became 342026-11-27.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, write_through=False)


def main(script: str, *arguments: str) -> None:
    """Goes on as `python script arguments…` would."""
    die_with_parent()
    write_whole_lines()
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    from kohya_trainer import orders
    from kohya_trainer.hooks.install import install_hooks

    settings = os.environ.get("KOHYA_ACCELERATION", "off")
    if settings != "off":
        from kohya_trainer.acceleration.trainer import install

        install(settings)
    if named := os.environ.get(orders.VARIABLE):
        install_hooks(orders.read_orders(Path(named)))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
