"""E-mails are read as the embedded AWS leaves them."""

from email.message import EmailMessage
from pathlib import Path

import pytest

from local.cli import mailbox
from local.cli.failure import CommandError


def deliver(folder: Path, name: str, body: str, run_id: str = "cats-1", kind: str = "") -> None:
    message = EmailMessage()
    message["Subject"] = f"About {name}"
    message["X-Attribute-run_id"] = run_id
    if kind:
        message["X-Attribute-kind"] = kind
    message.set_content(body)
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.eml").write_bytes(bytes(message))


def test_a_mail_is_read_with_subject_body_and_attributes(tmp_path: Path) -> None:
    deliver(tmp_path / "mailbox", "one", "Größe: 3 MB\n")
    (mail,) = mailbox.read(tmp_path / "mailbox")
    assert (mail.subject, mail.body, mail.attributes) == ("About one", "Größe: 3 MB\n", {"run_id": "cats-1"})


def test_there_may_be_no_mailbox_yet(tmp_path: Path) -> None:
    assert mailbox.read(tmp_path / "mailbox") == []


def test_mails_of_other_runs_are_told_apart(tmp_path: Path) -> None:
    deliver(tmp_path, "one", "x")
    deliver(tmp_path, "two", "x", run_id="dogs-2")
    deliver(tmp_path, "three", "it repeats cats-1", run_id="other")
    found = mailbox.about(mailbox.read(tmp_path), "cats-1")
    assert {mail.path.stem for mail in found} == {"one", "three"}


def test_a_mail_that_never_comes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no e-mail came about cats"):
        mailbox.wait_for(tmp_path, lambda mail: True, "about cats", limit=0.0)


def test_the_final_mail_of_a_run_is_not_the_started_one_nor_another_runs(tmp_path: Path) -> None:
    deliver(tmp_path, "started", "x", kind="started")
    deliver(tmp_path, "other", "it repeats cats-1", run_id="dogs-2", kind="repeated")
    assert mailbox.final(tmp_path, "cats-1", limit=0.0) is None
    deliver(tmp_path, "rejected", "x", kind="rejected")
    found = mailbox.final(tmp_path, "cats-1", limit=0.0)
    assert found is not None
    assert found.subject == "About rejected"
