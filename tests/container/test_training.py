"""How a job ends, whatever befalls it while it tells of that."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kohya_trainer import training
from kohya_trainer.errors import TrainingError
from kohya_trainer.failure_file import write_failure

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (TrainingError("It is over.", "Begin anew."), "It is over."),
        (
            FileNotFoundError(2, "gone"),
            "The training container itself failed (FileNotFoundError: [Errno 2] gone).",
        ),
        (KeyError("gone"), "The training container itself failed (KeyError: 'gone')."),
    ],
)
def test_a_signal_while_a_failure_is_told_does_not_lose_it(
    number: signal.Signals,
    error: Exception,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise error

    def interrupted(*arguments: Any) -> None:
        os.kill(os.getpid(), number)
        write_failure(*arguments)

    monkeypatch.setattr(training, "train", fail)
    monkeypatch.setattr(training, "read_environment", lambda variables: None)
    monkeypatch.setattr(training, "write_failure", interrupted)

    assert training.main({"TRAINING_ROOT": str(tmp_path)}) == 1

    told = (tmp_path / "output" / "failure").read_text(encoding="utf-8")
    assert told.startswith(f"{sentence}\nRemedy: ")
    assert ("Traceback" in told) == (not isinstance(error, TrainingError))
