"""Kohya's two ways of logging: its logger writes to stderr with a time and a level, accelerate prints
plainly.
"""

import sys
from datetime import datetime


def info(text: str, level: str = "INFO") -> None:
    """A line as Kohya's logger prints it without a terminal."""
    print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {level:<8} {text}", file=sys.stderr, flush=True)


def plain(text: str) -> None:
    """A line of accelerator.print."""
    print(text, flush=True)
