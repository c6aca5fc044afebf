"""The commands that docs/operations.md tells a person to type, against what AWS takes."""

from __future__ import annotations

import re

import pytest
from botocore import xform_name
from botocore.session import get_session

from tests.contract.definitions import ROOT

TEXT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
OF_EVERY_COMMAND = {"query", "output", "region", "profile", "no-paginate"}
RENAMED = {
    "endpoint": "notification-endpoint"
}  # by the aws CLI, which takes an --endpoint-url with every command
# In backquotes or indented; a backslash at a line's end goes on.
COMMANDS = re.findall(r"^ {4,}(aws .*)$|`(aws [^`]*)`", TEXT.replace("\\\n", " "), flags=re.MULTILINE)


@pytest.mark.parametrize("command", sorted({one or other for one, other in COMMANDS}))
def test_every_option_of_an_aws_command_is_one_of_the_operations(command: str) -> None:
    _, service, name, *_ = command.split()
    model = get_session().get_service_model(service.replace("s3api", "s3"))
    operation = next(each for each in model.operation_names if xform_name(each, "-") == name)
    members = (xform_name(member, "-") for member in model.operation_model(operation).input_shape.members)
    taken = {RENAMED.get(member, member) for member in members}
    assert set(re.findall(r"(?<= --)[a-z-]+", command)) <= taken | OF_EVERY_COMMAND


def test_a_lost_subscription_has_its_remedy() -> None:
    told = {command.split()[2] for pair in COMMANDS for command in pair if command}
    assert told >= {"list-subscriptions-by-topic", "subscribe", "confirm-subscription"}
