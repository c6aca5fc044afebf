"""The embedded AWS can never be mistaken for a real account."""

from pathlib import Path

from local.cli.account import ROOT, pointing_at, stack_name


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
