"""What `./dev drop` tells at the end, and what it looks at first."""

from email.message import EmailMessage
from pathlib import Path

import pytest

from local.cli import commands, dropping, mailbox


def deliver(folder: Path, kind: str, body: str) -> None:
    message = EmailMessage()
    message["Subject"] = f"cats: {kind}"
    message["X-Attribute-run_id"] = "cats-1"
    message["X-Attribute-kind"] = kind
    message.set_content(body)
    (folder / f"{kind}.eml").write_bytes(bytes(message))


@pytest.mark.parametrize("kind", ["completed", "repeated", "rejected", "failed"])
def test_the_final_mail_is_printed_whole(tmp_path: Path, kind: str) -> None:
    deliver(tmp_path, "started", "It began.")
    deliver(tmp_path, kind, "All that\nthere is to say.")
    assert dropping.mail_about(tmp_path, "cats-1") == f"\n--- cats: {kind}\nAll that\nthere is to say.\n"


def test_a_mail_that_does_not_come_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox.time, "monotonic", iter(range(0, 1000, 10)).__next__)
    monkeypatch.setattr(mailbox.time, "sleep", lambda seconds: None)
    assert "no e-mail came at the end of run cats-1" in dropping.mail_about(tmp_path, "cats-1")


@pytest.mark.parametrize(
    ("status", "code"),
    [("COMPLETED", 0), ("REPEATED", 0), ("REJECTED", 1), ("FAILED", 1), ("STOPPED", 1)],
)
def test_the_exit_code_tells_whether_there_is_a_model(status: str, code: int) -> None:
    assert dropping.tell({"status": status}) == code


def test_files_that_are_only_in_the_bucket_are_named() -> None:
    text = dropping.warning("s3://photos/datasets/cats/", [f"{number:02d}.jpg" for number in range(22)])
    assert "22 files that are not in the folder and part of the dataset nevertheless" in text
    assert "\n  00.jpg\n" in text
    assert "\n  and 2 more\n" in text
    assert "20.jpg" not in text


def test_a_folder_that_is_no_dataset_is_told_before_an_account_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def account_in_use() -> None:
        raise AssertionError("an account was asked for")

    monkeypatch.setattr(commands, "account_in_use", account_in_use)
    assert commands.main(["drop", str(tmp_path)]) == 1
    assert "holds no manifest.json" in capsys.readouterr().err
