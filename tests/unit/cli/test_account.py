"""The embedded AWS can never be mistaken for a real account."""

from pathlib import Path

import pytest

from local.cli.account import own_account, pointing_at, stack_name
from local.cli.repository import ROOT


def test_nothing_of_a_persons_own_account_reaches_the_embedded_aws() -> None:
    own = {
        "AWS_PROFILE": "work",
        "AWS_SESSION_TOKEN": "secret",
        "AWS_REGION": "eu-west-1",
        "HOME": "/home/me",
    }
    environment = pointing_at("http://127.0.0.1:1234", own)
    assert environment["HOME"] == "/home/me"
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1234"
    assert "AWS_PROFILE" not in environment
    assert "secret" not in environment.values()
    assert "eu-west-1" not in environment.values()
    assert environment["AWS_CONFIG_FILE"] == environment["AWS_SHARED_CREDENTIALS_FILE"] == "/dev/null"


def test_both_environments_of_samconfig_name_their_stack(tmp_path: Path) -> None:
    assert stack_name(ROOT / "samconfig.toml", "local") == stack_name(ROOT / "samconfig.toml", "default")
    samconfig = tmp_path / "samconfig.toml"
    samconfig.write_text('[other.deploy.parameters]\nstack_name = "mine"\n')
    assert stack_name(samconfig, "other") == "mine"


SAMCONFIG = """
[default.global.parameters]
profile = "work"
region = "eu-west-3"
[default.deploy.parameters]
stack_name = "mine"
region = "eu-west-1"
"""


@pytest.fixture
def samconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_ACCESS_KEY_ID",
    ):
        monkeypatch.delenv(name, raising=False)
    samconfig = tmp_path / "samconfig.toml"
    samconfig.write_text(SAMCONFIG)
    return samconfig


def test_region_and_profile_are_those_of_sam_deploy(samconfig: Path) -> None:
    account = own_account(samconfig)
    assert (account.stack_name, account.region, account.profile) == ("mine", "eu-west-1", "work")
    assert account.environment["AWS_PROFILE"] == "work"  # git reads it there


@pytest.mark.parametrize("name", ["AWS_PROFILE", "AWS_ACCESS_KEY_ID"])
def test_the_environment_goes_before_samconfig(
    samconfig: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    monkeypatch.setenv(name, "own")
    account = own_account(samconfig)
    assert (account.region, account.profile) == ("us-west-2", "")
    assert account.environment[name] == "own"


def test_neither_need_be_written_down(samconfig: Path) -> None:
    samconfig.write_text('[default.deploy.parameters]\nstack_name = "mine"\n')
    account = own_account(samconfig)
    assert (account.region, account.profile) == ("", "")
