"""`./dev runs`: the history, newest first."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from local.cli import records
from local.cli.account import Account
from local.cli.records import Record

COLUMNS = ("run", "status", "begun", "took", "step", "cost", "model or cause")
NEWEST = 30


def run(account: Account, outputs: Mapping[str, str]) -> int:
    found = records.newest(records.table_of(account, outputs), NEWEST)
    # A pipe has no width of its own, and a truncated run id is of no use to the program that reads it.
    console = Console() if Console().is_terminal else Console(width=250)
    console.print(table_of(found) if found else "no runs yet; ./dev drop examples/photographs starts one")
    return 0


def table_of(found: Sequence[Record]) -> Table:
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for record in found:
        table.add_row(*row(record))
    return table


def row(record: Record) -> tuple[str, ...]:
    """One cell a column; what is not known yet is empty."""
    observation: Record = record.get("observation") or {}
    failure: Record = record.get("failure") or {}
    model: Record = record.get("model") or {}
    changes = records.moments(record)
    begun = f"{changes[0][1].astimezone():%Y-%m-%d %H:%M:%S}" if changes else ""
    took = f"{(changes[-1][1] - changes[0][1]).total_seconds():.0f} s" if len(changes) > 1 else ""
    step, total, cost = observation.get("step"), observation.get("total"), observation.get("cost_usd")
    return (
        str(record["run_id"]),
        str(record.get("status", "")),
        begun,
        took,
        f"{step}/{total}" if step is not None and total else "",
        f"${float(cost):.2f}" if cost is not None else "",
        str(model.get("uri") or record.get("repeats") or failure.get("cause") or ""),
    )
