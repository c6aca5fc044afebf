"""`./dev drop DIR`."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from local.cli import dataset, mailbox, records, refusal
from local.cli.account import Account, seconds_between_looks
from local.cli.failure import CommandError
from local.cli.records import Record
from local.cli.run_view import RunView

SECONDS_TO_FOLLOW = 30 * 24 * 3600.0  # the state machine ends a run that takes longer
NAMED = 20
UPLOADED_IN_PART = (
    "What was uploaded stays in the bucket, and nothing starts before the manifest, which goes last (./dev runs shows "
    "whether it arrived); ./dev drop once more uploads all of it."
)


def run(account: Account, outputs: Mapping[str, str], folder: Path, choice: str | None, follow: bool) -> int:
    """Exit code 0 when the run completed or repeats one, or when it is not followed.

    Args:
        choice: what becomes of files that only the bucket holds: "delete" or "keep"; None refuses to drop then.
    """
    s3, bucket = account.client("s3"), outputs["BucketName"]
    if choice != "keep" and (left := dataset.left_over(s3, bucket, folder)):
        if choice is None:
            raise CommandError(refused(f"s3://{bucket}/{dataset.prefix_of(folder)}", left))
        dataset.delete(s3, bucket, folder, left)
        print(f"deleted in the bucket, which keeps the old versions: {', '.join(left)}")
    with refusal.told(UPLOADED_IN_PART):
        dropped = dataset.drop(s3, bucket, folder, say=print)
    print(
        f"dropped {dropped.files} files ({dropped.size / 1e6:.1f} MB) at s3://{dropped.bucket}/{dropped.manifest_key}"
    )
    table = records.table_of(account, outputs)
    with refusal.told("The dataset is dropped: ./dev runs will show its run, and ./dev stop RUN ends it."):
        run_id = records.wait_for_run(table, dropped, seconds_between_looks(account, own=1.0))
    print(f"run {run_id}")
    return follow_run(account, table, run_id) if follow else 0


def follow_run(account: Account, table: Any, run_id: str) -> int:
    """Shows the run up to its end; the exit code that its status is worth.

    Raises CommandError where AWS cannot be asked any more: a run needs nobody who follows it.
    """
    with refusal.told(
        f"The run goes on, and its end is mailed: ./dev runs shows {run_id}, ./dev stop {run_id} ends it."
    ):
        changes = records.follow(table, run_id, SECONDS_TO_FOLLOW, seconds_between_looks(account))
        record = RunView(Console()).follow(changes)
    if account.embedded:
        print(mail_about(account.embedded.mailbox, run_id))
    return tell(record)


def tell(record: Record) -> int:
    """The addresses of what the run left, and the exit code that its status is worth."""
    if (record.get("model") or {}).get("uri"):
        print(f"model: {record['model']['uri']}")
    if record.get("report_uri"):
        print(f"report: {record['report_uri']}")
    return 0 if record.get("status") in {"COMPLETED", "REPEATED"} else 1


def mail_about(folder: Path, run_id: str) -> str:
    """The e-mail that tells how the run ended: the record has the end a moment before SNS delivers it."""
    mail = mailbox.final(folder, run_id)
    if mail is None:
        return f"no e-mail came at the end of run {run_id}; {folder} holds those that did"
    return f"\n--- {mail.subject}\n{mail.body.strip()}\n"


def refused(address: str, left: list[str]) -> str:
    """Why a folder is not dropped over files that would be trained on with it, and every way out."""
    names = [f"  {name}" for name in left[:NAMED]]
    more = [f"  and {len(left) - NAMED} more"] if len(left) > NAMED else []
    count = "1 file that is" if len(left) == 1 else f"{len(left)} files that are"
    lines = [
        f"nothing was uploaded: {address} holds {count} not in the folder and would be trained on with it:",
        *names,
        *more,
        "If they were removed from this dataset: ./dev drop --delete, or delete one of them with",
        f"  aws s3 rm {shlex.quote(address + left[0])}",
        "If they are part of it: ./dev drop --keep. If they are another dataset: rename the folder.",
    ]
    return "\n".join(lines)
