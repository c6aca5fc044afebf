"""`./dev drop DIR`."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from local.cli import dataset, mailbox, records
from local.cli.account import Account
from local.cli.run_view import RunView

SECONDS_TO_FOLLOW = 28 * 24 * 3600.0  # no training job may take longer


def run(account: Account, outputs: Mapping[str, str], folder: Path, follow: bool) -> int:
    """Exit code 0 when the run completed, or when it is not followed."""
    console = Console()
    dropped = dataset.drop(account.client("s3"), outputs["BucketName"], folder)
    print(
        f"dropped {dropped.files} files ({dropped.size / 1e6:.1f} MB) at s3://{dropped.bucket}/{dropped.manifest_key}"
    )
    table = records.table_of(account, outputs)
    run_id = records.wait_for_run(table, dropped)
    print(f"run {run_id}")
    if not follow:
        return 0
    record = RunView(console).follow(records.follow(table, run_id, SECONDS_TO_FOLLOW))
    if account.embedded:
        for mail in mailbox.about(mailbox.read(account.embedded.mailbox), run_id):
            print(f"e-mail: {mail.subject}\n        {mail.path}")
    if (record.get("model") or {}).get("uri"):
        print(f"model: {record['model']['uri']}")
    if record.get("report_uri"):
        print(f"report: {record['report_uri']}")
    return 0 if record.get("status") in {"COMPLETED", "REPEATED"} else 1
