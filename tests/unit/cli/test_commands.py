"""Which stack the commands speak to."""

from __future__ import annotations

import pytest

from local.cli import commands
from local.cli.account import Account
from local.cli.failure import CommandError

COMMANDS = (
    ["push-image-source"],
    ["replay", "--dry-run"],
    ["retry", "cats-1"],
    ["runs"],
    ["stop", "cats-1"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize(("named", "asked"), [([], "first"), (["--stack-name", "second"], "second")])
def test_a_second_stack_is_named_as_sam_names_it(
    command: list[str],
    named: list[str],
    asked: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stack_outputs(account: Account) -> dict[str, str]:
        raise CommandError(f"the outputs of {account.stack_name}")

    monkeypatch.setattr(commands, "account_in_use", lambda: Account("first", "us-east-1"))
    monkeypatch.setattr(commands, "place_of", lambda account: f"stack {account.stack_name}")
    monkeypatch.setattr(commands, "stack_outputs", stack_outputs)
    assert commands.main([*command, *named]) == 1
    told = capsys.readouterr().err
    assert f"stack {asked}\n" in told  # before anything is done
    assert f"the outputs of {asked}" in told


def test_a_drop_names_its_stack_too() -> None:
    assert commands.parse(["drop", "cats", "--stack-name", "second"]).stack_name == "second"
