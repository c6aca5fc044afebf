"""Ctrl-C and its kin, turned into one exception, so that every `finally` runs and runs to its end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Not an Exception: no `except Exception` on the way up may swallow it.

    `what_stays` is a sentence of what is true all the same, such as that a run goes on.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number
        self.what_stays = ""


class Interruption:
    """Raises at the first signal only: a second, impatient Ctrl-C must not cut the cleaning up short."""

    def __init__(self) -> None:
        self.postponements = 0
        self.pending: int | None = None
        self.raised = False

    def arrived(self, signal_number: int, _: FrameType | None) -> None:
        self.pending = signal_number
        self.raise_if_due()

    def raise_if_due(self) -> None:
        if self.pending is not None and not self.raised and self.postponements == 0:
            self.raised = True
            raise Interrupted(self.pending)


current = Interruption()


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGINT, SIGTERM and SIGHUP raise Interrupted in the main thread, once."""
    global current
    current = Interruption()
    previous = {number: signal.signal(number, current.arrived) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def postponed() -> Iterator[None]:
    """Signals wait until the block is over: around making what must be removed, and around removing it."""
    current.postponements += 1
    try:
        yield
    finally:
        current.postponements -= 1
    current.raise_if_due()


@contextmanager
def leaving(what_stays: str) -> Iterator[None]:
    """Who interrupts the block reads this sentence; of blocks within one another the inner one's counts."""
    try:
        yield
    except Interrupted as interruption:
        interruption.what_stays = interruption.what_stays or what_stays
        raise
