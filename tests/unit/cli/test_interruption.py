"""A signal becomes one exception, at a moment that suits."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local.cli import __main__ as program
from local.cli import commands, demo, dropping, retrying, stopping, up
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


def interrupt(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGINT)


def interrupted(
    at: tuple[Any, str], command: list[str], monkeypatch: pytest.MonkeyPatch, client: Any = None
) -> int:
    """The exit code of a command that is interrupted where it calls `at`."""
    account = SimpleNamespace(embedded=None, stack_name="mine", client=lambda name: client)
    monkeypatch.setattr(commands, "account_in_use", lambda: account)
    monkeypatch.setattr(commands, "place_of", lambda account: "AWS account 1")
    outputs = {"BucketName": "photos", "RetryFunctionName": "retry"}
    monkeypatch.setattr(commands, "stack_outputs", lambda account: outputs)
    monkeypatch.setattr(dropping.records, "table_of", lambda *_: None)
    monkeypatch.setattr(*at, interrupt)
    return program.main(command)


@pytest.mark.parametrize(("place", "command"), [((demo, "run"), "demo"), ((up, "up"), "up")])
def test_of_what_cleans_up_after_itself_nothing_stays(
    place: tuple[Any, str], command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interrupted(place, [command], monkeypatch) == 130
    assert "Nothing was left behind." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ((dropping.dataset, "drop"), "nothing starts before the manifest"),
        ((dropping.records, "wait_for_run"), "./dev runs will show its run, and ./dev stop RUN ends it"),
        ((dropping.records, "follow"), "The run goes on, and its end is mailed: ./dev runs shows cats-1"),
    ],
)
def test_who_interrupts_a_drop_reads_what_goes_on(
    place: tuple[Any, str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    dropped = SimpleNamespace(files=1, size=2, bucket="photos", manifest_key="datasets/cats/manifest.json")
    monkeypatch.setattr(dropping.dataset, "left_over", lambda *_: [])
    monkeypatch.setattr(dropping.dataset, "drop", lambda *_, **__: dropped)
    monkeypatch.setattr(dropping.records, "wait_for_run", lambda *_: "cats-1")
    assert interrupted(place, ["drop", str(tmp_path)], monkeypatch) == 130
    shown = capsys.readouterr().err
    assert told in shown
    assert "left behind" not in shown


def test_who_interrupts_a_retry_or_a_stop_reads_what_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training = {"run_id": "cats-1", "status": "TRAINING", "execution_arn": "arn"}
    monkeypatch.setattr(stopping.records, "find", lambda *_: training)
    lambdas = SimpleNamespace(invoke=interrupt)
    assert interrupted((retrying.dropping, "follow_run"), ["retry", "cats-1"], monkeypatch, lambdas) == 130
    assert "./dev runs shows whether" in capsys.readouterr().err
    flows = SimpleNamespace(stop_execution=lambda **_: None)
    assert interrupted((stopping, "_ended"), ["stop", "cats-1"], monkeypatch, flows) == 130
    assert "Its flow is stopped" in capsys.readouterr().err


def test_of_what_was_interrupted_elsewhere_nothing_is_claimed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interrupted((commands.replay, "run"), ["replay"], monkeypatch) == 130
    assert capsys.readouterr().err.endswith("\ninterrupted.\n")
