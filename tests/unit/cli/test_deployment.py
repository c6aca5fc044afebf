"""A deployment is never silent for long."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local.cli import deployment
from local.cli.account import Account, pointing_at
from local.cli.deployment import Progress
from local.cli.embedded import Embedded

EVENT = "CREATE_COMPLETE          AWS::SQS::Queue          Queue                    -"
BUILT = """
Resources:
  One:
    Properties:
      CodeUri: One
  Two:
    Properties:
      CodeUri: One
"""


def test_the_change_set_is_announced_and_resources_are_counted_as_time_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(deployment.time, "monotonic", lambda: now)
    said: list[str] = []
    progress = Progress(said.append, seconds=5)
    for line in (
        "\tUploading to x  1 / 2",
        "Waiting for changeset to be created..",
        "",
        "Changeset created x",
    ):
        progress(line)
    progress(EVENT)
    now = 106.0
    for _ in range(3):
        progress(EVENT)
        progress(EVENT.replace("COMPLETE", "IN_PROGRESS"))
    assert said == [
        "code uploaded, the change set is being made",
        "change set made, the resources are being created",
        "resources created: 2",
    ]


def test_what_is_deployed_is_one_archive_of_the_functions_and_sam_gets_a_tmpdir_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """sam compresses a folder anew for each function that names it."""
    deployed: list[str] = []

    def run(arguments: list[Any], *, folder: Path, environment: dict[str, str], **_: Any) -> str:
        assert Path(environment["TMPDIR"]).parent == folder
        assert Path(environment["TMPDIR"]).is_dir()
        if arguments[1] == "build":
            (folder / "build" / "One").mkdir(parents=True)
            (folder / "build" / "One" / "handler.py").write_text("x")
            (folder / "build" / "template.yaml").write_text(BUILT)
        else:
            template = Path(arguments[arguments.index("--template-file") + 1])
            deployed.append(template.read_text())
            assert zipfile.ZipFile(template.parent / "One.zip").namelist() == ["handler.py"]
        return ""

    monkeypatch.setattr(deployment, "run", run)
    monkeypatch.setattr(deployment, "interpreter_version", lambda: "3.11")
    endpoint = "http://127.0.0.1:9"
    account = Account("stack", "us-east-1", Embedded(endpoint, "/nowhere", 0), pointing_at(endpoint, {}))
    say: Callable[[str], None] = lambda line: None  # noqa: E731
    deployment.deploy(account, say)
    assert deployed == [BUILT.replace("CodeUri: One", "CodeUri: One.zip")]
