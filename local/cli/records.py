"""The run's record as docs/contracts.md gives it: read here, written by the functions alone."""

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from boto3.dynamodb.conditions import Key

from local.cli.account import Account
from local.cli.dataset import Dropped
from local.cli.failure import CommandError

Record = Mapping[str, Any]

FINAL = frozenset({"COMPLETED", "REJECTED", "REPEATED", "FAILED", "STOPPED"})
SECONDS_TO_APPEAR = 60.0
LISTED = 30  # by ./dev runs


def table_of(account: Account, outputs: Mapping[str, str]) -> Any:
    return account.resource("dynamodb").Table(outputs["RunTableName"])


def newest(table: Any, limit: int) -> list[Record]:
    """The newest runs first, out of the index by-creation."""
    answer = table.query(
        IndexName="by-creation",
        KeyConditionExpression=Key("record_type").eq("run"),
        ScanIndexForward=False,
        Limit=limit,
    )
    return [plain(item) for item in answer["Items"]]


def find(table: Any, run_id: str) -> Record:
    """The record of a run, by its id, or by the beginning of one of those that ./dev runs lists.

    Raises CommandError where there is none, or several begin so.
    """
    item = table.get_item(Key={"run_id": run_id}, ConsistentRead=True).get("Item")
    if item is not None:
        record: Record = plain(item)
        return record
    found = [record for record in newest(table, LISTED) if str(record["run_id"]).startswith(run_id)]
    if len(found) > 1:
        names = ", ".join(str(record["run_id"]) for record in found)
        raise CommandError(f"{run_id} is the beginning of several runs: {names}")
    if not found:
        raise CommandError(f"there is no run {run_id}; ./dev runs lists them")
    return found[0]


def wait_for_run(table: Any, dropped: Dropped, poll: float = 0.1) -> str:
    """The id of the run that this very upload of the manifest started.

    Raises CommandError when no record of it appears.
    """
    deadline = time.monotonic() + SECONDS_TO_APPEAR
    while time.monotonic() < deadline:
        for record in newest(table, limit=20):
            uploaded = (record.get("manifest_key"), record.get("manifest_version"))
            if uploaded == (dropped.manifest_key, dropped.manifest_version):
                return str(record["run_id"])
        time.sleep(poll)
    upload = f"s3://{dropped.bucket}/{dropped.manifest_key}, version {dropped.manifest_version},"
    raise CommandError(
        f"no run of {upload} appeared within {SECONDS_TO_APPEAR:.0f} s. In some five minutes after the stack's "
        "creation S3 may not tell of drops yet: drop it again then. Otherwise the log of validate_manifest or its "
        "dead-letter queue tells why"
    )


def follow(table: Any, run_id: str, limit: float, poll: float = 0.25) -> Iterator[Record]:
    """The record whenever it has changed, up to its final status.

    Raises CommandError after `limit` seconds.
    """
    deadline = time.monotonic() + limit
    seen: Record = {}
    while time.monotonic() < deadline:
        record = plain(table.get_item(Key={"run_id": run_id}, ConsistentRead=True).get("Item", {}))
        if record != seen:
            seen = record
            yield record
        if record.get("status") in FINAL:
            return
        time.sleep(poll)
    raise CommandError(
        f"run {run_id} did not end within {limit:.0f} seconds; it stands at {seen.get('status')}"
    )


def plain(value: Any) -> Any:
    """DynamoDB's Decimals as int or float."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def moments(record: Record) -> list[tuple[str, datetime]]:
    """The statuses that the run went through, each with the time it began."""
    return [(str(change["status"]), moment(str(change["at"]))) for change in record.get("history", [])]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
