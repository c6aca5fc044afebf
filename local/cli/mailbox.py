"""E-mails that SNS delivered, as the embedded AWS keeps them: one .eml file a message."""

import email
import email.policy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from local.cli.failure import CommandError

ATTRIBUTE = "X-Attribute-"
ON_THE_WAY = frozenset({"waiting", "started", "progress"})  # kinds after which a run goes on


@dataclass(frozen=True)
class Mail:
    """`attributes` are the SNS message attributes by name; `at` is when the file was written."""

    path: Path
    subject: str
    body: str
    at: datetime
    attributes: dict[str, str] = field(default_factory=dict)


def read(mailbox: Path) -> list[Mail]:
    """The oldest first."""
    mails = [parse(path) for path in mailbox.glob("*.eml")] if mailbox.is_dir() else []
    return sorted(mails, key=lambda mail: (mail.at, mail.path.name))


def parse(path: Path) -> Mail:
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    body = message.get_body(("plain",))
    return Mail(
        path,
        subject=str(message["Subject"] or ""),
        body=str(body.get_content()) if body else "",
        at=datetime.fromtimestamp(path.stat().st_mtime, UTC),
        attributes={
            name.removeprefix(ATTRIBUTE): str(value)
            for name, value in message.items()
            if name.startswith(ATTRIBUTE)
        },
    )


def about(mails: list[Mail], run_id: str) -> list[Mail]:
    """Those of one run, which names itself in an attribute or in the text."""
    return [
        mail for mail in mails if run_id in mail.attributes.values() or run_id in mail.subject + mail.body
    ]


def is_final(mail: Mail, run_id: str) -> bool:
    """Whether it tells how the run ended; a mail of another run may name this one."""
    return mail.attributes.get("run_id") == run_id and mail.attributes.get("kind") not in ON_THE_WAY


def final(mailbox: Path, run_id: str, limit: float = 15.0) -> Mail | None:
    """The e-mail that tells how the run ended, or None when none comes within `limit` seconds."""
    try:
        return wait_for(mailbox, lambda mail: is_final(mail, run_id), f"at the end of run {run_id}", limit)
    except CommandError:
        return None


def wait_for(mailbox: Path, wanted: Callable[[Mail], bool], what: str, limit: float = 15.0) -> Mail:
    """The first mail that is wanted. Raises CommandError when none comes within `limit` seconds."""
    deadline = time.monotonic() + limit
    while True:
        for mail in read(mailbox):
            if wanted(mail):
                return mail
        if time.monotonic() > deadline:
            raise CommandError(f"no e-mail came {what} within {limit:.0f} seconds")
        time.sleep(0.1)
