"""The `aws` of a build on a machine without the AWS CLI."""

import json
import subprocess
from pathlib import Path

import pytest

from local.embedded_aws import aws_command
from local.embedded_aws.build_tools import write_tools
from tests.embedded_aws.running import REGION, RunningEmbeddedAws


@pytest.fixture
def as_root(aws: RunningEmbeddedAws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("as_root")
def test_an_operation_is_called_by_name(unique: str, capsys: pytest.CaptureFixture[str]) -> None:
    create = ["ecr", "create-repository", "--repository-name", unique, "--tags", "Key=a,Value=b"]
    assert aws_command.main([*create, "--query", "repository.repositoryName", "--output", "text"]) == 0
    assert capsys.readouterr().out == f"{unique}\n"
    assert aws_command.main(["ecr", "describe-repositories", f"--repository-names={unique}"]) == 0
    assert json.loads(capsys.readouterr().out)["repositories"][0]["repositoryName"] == unique


@pytest.mark.usefixtures("as_root")
def test_the_registrys_password_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert aws_command.main(["ecr", "get-login-password", "--region", REGION]) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["ecr", "list-images", "--repository-name", "never-created"], 254),
        (["ecr", "list-imagines"], 252),
        (["ecr", "list-images", "--colour", "red"], 252),
        (["ecr"], 252),
    ],
)
def test_errors_have_the_clis_exit_statuses(
    words: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert aws_command.main(words) == status
    assert capsys.readouterr().err


@pytest.mark.usefixtures("as_root")
def test_a_build_gets_it_where_no_cli_is_installed(tmp_path: Path) -> None:
    folder = write_tools(tmp_path / "bin", str(tmp_path / "empty"), {})

    done = subprocess.run(
        [folder / "aws", "ecr", "get-login-password"], capture_output=True, text=True, cwd=tmp_path
    )

    assert (done.returncode, bool(done.stdout.strip())) == (0, True), done.stderr
    assert (folder / "docker").exists()
