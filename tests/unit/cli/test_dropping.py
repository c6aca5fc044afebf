"""What `./dev drop` tells at the end, and what it looks at first."""

from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


class Bucket:
    """An S3 client of a bucket that holds `keys`; it notes what is done to them."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.done: list[tuple[str, str]] = []

    def get_paginator(self, operation: str) -> Any:
        return SimpleNamespace(paginate=lambda **_: [{"Contents": [{"Key": key} for key in self.keys]}])

    def delete_object(self, **named: str) -> None:
        self.done.append(("deleted", named["Key"]))

    def put_object(self, **named: Any) -> dict[str, str]:
        self.done.append(("put", named["Key"]))
        return {}


def drop(bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    """The exit code of `./dev drop`, whose run is another test's."""
    folder.mkdir()
    (folder / "manifest.json").write_text('{"version": 1}')
    account = SimpleNamespace(embedded=None, stack_name="mine", client=lambda name: bucket)
    monkeypatch.setattr(commands, "account_in_use", lambda: account)
    monkeypatch.setattr(commands, "place_of", lambda account: "AWS account 1")
    monkeypatch.setattr(commands, "stack_outputs", lambda account: {"BucketName": "photos"})
    monkeypatch.setattr(dropping.records, "table_of", lambda *_: None)
    monkeypatch.setattr(dropping.records, "wait_for_run", lambda *_: "cats-1")
    return commands.main(["drop", str(folder), "--no-wait", *options])


def test_files_that_only_the_bucket_holds_are_a_reason_to_upload_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = Bucket(*(f"datasets/cats/my {number:02d}.jpg" for number in range(22)))
    assert drop(bucket, tmp_path / "cats", monkeypatch) == 1
    assert bucket.done == []
    told = capsys.readouterr().err
    assert "22 files that are not in the folder" in told
    assert "\n  my 00.jpg\n" in told
    assert "\n  and 2 more\n" in told
    assert "20.jpg" not in told
    assert "aws s3 rm 's3://photos/datasets/cats/my 00.jpg'" in told
    assert all(way in told for way in ("--delete", "--keep", "rename the folder"))


@pytest.mark.parametrize(
    ("option", "done"),
    [
        ("--delete", [("deleted", "datasets/cats/old.jpg"), ("put", "datasets/cats/manifest.json")]),
        ("--keep", [("put", "datasets/cats/manifest.json")]),
    ],
)
def test_who_drops_says_what_becomes_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, done: list[tuple[str, str]]
) -> None:
    bucket = Bucket("datasets/cats/old.jpg", "datasets/cats/manifest.json")
    assert drop(bucket, tmp_path / "cats", monkeypatch, option) == 0
    assert bucket.done == done


def test_a_folder_that_is_no_dataset_is_told_before_an_account_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def account_in_use() -> None:
        raise AssertionError("an account was asked for")

    monkeypatch.setattr(commands, "account_in_use", account_in_use)
    assert commands.main(["drop", str(tmp_path)]) == 1
    assert "holds no manifest.json" in capsys.readouterr().err
