"""`./dev runs`: the history, newest first."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError
from rich.console import Console
from rich.table import Table

from local.cli import records
from local.cli.account import Account
from local.cli.records import Record

WIDEST = 1000  # characters; what is longer, such as the cause of a failure, goes on below
COLUMNS = ("run", "status", "begun", "took", "step", "cost", "model or cause")


def run(account: Account, outputs: Mapping[str, str]) -> int:
    found = records.newest(records.table_of(account, outputs), records.LISTED)
    if not found:
        print("no runs yet; ./dev drop examples/photographs starts one")
        return 0
    s3 = account.client("s3")
    print("\n".join(lines_of(table_of(found, lambda record: problems_of(s3, record)))))
    return 0


def lines_of(table: Table) -> list[str]:
    """One a run, whatever the terminal's width, which breaks it where it must.

    An id or an address that is cut, or broken into the lines of a cell, cannot be copied.
    """
    console = Console(width=WIDEST, file=io.StringIO())
    with console.capture() as shown:
        console.print(table)
    return [line.rstrip() for line in shown.get().splitlines()]


def problems_of(s3: Any, record: Record) -> int | None:
    """How many errors the run's report lists; None where it cannot be read."""
    bucket, _, key = str(record.get("report_uri") or "").removeprefix("s3://").partition("/")
    if not key:
        return None
    try:
        report = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    except ClientError:
        return (
            None  # it is deleted, or another person's to read; the rest of the history is still worth showing
        )
    severities: list[str] = [finding["severity"] for finding in report["findings"]]
    return severities.count("error")


def table_of(found: Sequence[Record], problems: Callable[[Record], int | None]) -> Table:
    """`problems` is asked of the rejected runs alone: it reads their reports."""
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for record in found:
        rejected = record.get("status") == "REJECTED"
        table.add_row(*row(record, problems(record) if rejected else None))
    return table


def row(record: Record, problems: int | None = None) -> tuple[str, ...]:
    """One cell a column; what is not known yet is empty."""
    observation: Record = record.get("observation") or {}
    failure: Record = record.get("failure") or {}
    model: Record = record.get("model") or {}
    changes = records.moments(record)
    begun = f"{changes[0][1].astimezone():%Y-%m-%d %H:%M:%S}" if changes else ""
    until = changes[-1][1] if changes and record.get("status") in records.FINAL else datetime.now(UTC)
    took = f"{(until - changes[0][1]).total_seconds():.0f} s" if changes else ""
    step, total, cost = observation.get("step"), observation.get("total"), observation.get("cost_usd")
    return (
        str(record["run_id"]),
        str(record.get("status", "")),
        begun,
        took,
        f"{step}/{total}" if step is not None and total else "",
        _cost(record, cost),
        str(model.get("uri") or record.get("repeats") or failure.get("cause") or rejection(record, problems)),
    )


def _cost(record: Record, cost: Any) -> str:
    """As the e-mail tells it: a rehearsal costs nothing, whatever its instance would have."""
    if record.get("rehearsal"):
        return "none"
    return f"${float(cost):.2f}" if cost is not None else ""


def rejection(record: Record, problems: int | None) -> str:
    """Where a person reads why; empty for a run that was not rejected."""
    if record.get("status") != "REJECTED":
        return ""
    count = {None: "rejected", 1: "1 problem"}.get(problems, f"{problems} problems")
    return f"{count}, see {record.get('report_uri') or 'the e-mail'}"
