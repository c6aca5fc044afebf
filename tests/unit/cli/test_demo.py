"""A demo whose run failed still tells everything, and that it failed."""

import io
from contextlib import contextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from local.cli import dataset, demo, mailbox, records
from local.cli.dataset import Dropped
from local.cli.embedded import Embedded
from local.cli.failure import CommandError
from local.cli.verdict import Stopwatch

FAILED: dict[str, Any] = {
    "run_id": "cats-1",
    "status": "FAILED",
    "history": [
        {"status": "RECEIVED", "at": "2026-01-02T03:04:05Z"},
        {"status": "FAILED", "at": "2026-01-02T03:04:09Z"},
    ],
    "observation": {"training_job": "job"},
    "failure": {"cause": "The disk was full.", "remedy": "Take a larger volume."},
    "report_uri": "s3://photos/runs/cats-1/report.json",
}


class AccountOfAFailedRun:
    """Its training job ended before it had an instance, so it has no TrainingEndTime."""

    stack_name = "stack"

    def __init__(self, home: Path) -> None:
        self.embedded = Embedded("http://127.0.0.1:9", str(home), 0)

    def client(self, service: str) -> "AccountOfAFailedRun":
        return self

    def describe_training_job(self, TrainingJobName: str) -> dict[str, Any]:  # noqa: N803 - boto3's name
        return {"TrainingJobName": TrainingJobName, "TrainingJobStatus": "Failed"}

    def list_objects_v2(self, **_: Any) -> dict[str, Any]:
        return {"Contents": [{"Key": "runs/cats-1/report.json"}]}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    (home / "mailbox").mkdir(parents=True)
    (home / "logs" / "training").mkdir(parents=True)
    (home / "server.log").write_text("what the server said\n")
    (home / "logs" / "training" / "job.log").write_text("what ended the job\n")

    @contextmanager
    def temporary(builder: dict[str, str]) -> Any:
        yield Embedded("http://127.0.0.1:9", str(home), 0)

    dropped = Dropped(
        "photos", "datasets/cats/manifest.json", "v1", 1, 1, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    )
    monkeypatch.setattr(demo.embedded, "temporary", temporary)
    monkeypatch.setattr(demo.image_machine, "offered", lambda environment, say: {})
    monkeypatch.setattr(demo, "embedded_account", lambda embedded: AccountOfAFailedRun(home))
    monkeypatch.setattr(demo, "deploy", lambda account, say: None)
    monkeypatch.setattr(demo, "stack_outputs", lambda account: {"BucketName": "photos"})
    monkeypatch.setattr(demo.Demonstration, "push_image_source", lambda self: None)
    monkeypatch.setattr(dataset, "drop", lambda s3, bucket, folder, order: dropped)
    monkeypatch.setattr(records, "table_of", lambda account, outputs: None)
    monkeypatch.setattr(records, "wait_for_run", lambda table, dropped: "cats-1")
    monkeypatch.setattr(records, "follow", lambda table, run_id, limit: iter([FAILED]))
    return home


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "manifest.json").write_text("{}")
    return tmp_path / "cats"


@pytest.mark.parametrize("mailed", [True, False])
def test_a_failed_run_reaches_the_mails_the_claims_and_the_logs(
    home: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    mailed: bool,
) -> None:
    if mailed:
        message = EmailMessage()
        message["Subject"] = "Failed: cats"
        message["X-Attribute-run_id"], message["X-Attribute-kind"] = "cats-1", "failed"
        message.set_content("The disk was full.")
        (home / "mailbox" / "one.eml").write_bytes(bytes(message))
    final = mailbox.final
    monkeypatch.setattr(mailbox, "final", lambda folder, run_id: final(folder, run_id, limit=0.0))
    assert demo.run(folder) == 1
    shown = capsys.readouterr().out
    assert ("--- Failed: cats" in shown) == mailed
    assert "NO  the run completed" in shown
    assert "NO  the second drop was answered" in shown
    assert "yes the report is in the bucket" in shown
    assert "what the server said" in shown
    assert "what ended the job" in shown


def test_a_step_that_fails_shows_the_servers_log_too(
    home: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deploy(account: Any, say: Any) -> None:
        raise CommandError("sam deploy failed")

    monkeypatch.setattr(demo, "deploy", deploy)
    with pytest.raises(CommandError, match="sam deploy failed"):
        demo.run(folder)
    assert "what the server said" in capsys.readouterr().out


def test_the_delay_of_the_mail_is_measured_where_the_job_has_an_end(home: Path) -> None:
    class Account(AccountOfAFailedRun):
        def describe_training_job(self, TrainingJobName: str) -> dict[str, Any]:  # noqa: N803
            return {"TrainingEndTime": datetime(2026, 1, 2, 3, 4, 8, tzinfo=UTC)}

    stopwatch = Stopwatch()
    account: Any = Account(home)
    shown = demo.Demonstration(Console(file=io.StringIO()), account, stopwatch)
    at = datetime(2026, 1, 2, 3, 4, 10, tzinfo=UTC)
    mail = mailbox.Mail(home / "one.eml", "Failed", "", at)
    shown.measure(FAILED, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), mail)
    assert stopwatch.stages[-1] == ("  job's end to the mail (aim 5 s)", 2.0)
