"""A signal becomes one exception, at a moment that suits."""

import os
import signal

import pytest

from local.cli.interruption import Interrupted, interruptible, postponed


def test_only_the_first_signal_interrupts() -> None:
    with interruptible():
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_waits_until_a_postponing_block_is_over() -> None:
    reached = []

    def work() -> None:
        with postponed(), postponed():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("end of the block")
        reached.append("what follows")

    with interruptible(), pytest.raises(Interrupted):
        work()
    assert reached == ["end of the block"]


def test_the_previous_handlers_return() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interruptible():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
