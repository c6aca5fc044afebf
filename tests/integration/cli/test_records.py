"""Run records are found and followed in a real table."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import boto3
import pytest
from moto import mock_aws

from local.cli import records, runs
from local.cli.account import Account, place_of
from local.cli.dataset import Dropped
from local.cli.failure import CommandError

KEY = "datasets/cats/manifest.json"


@pytest.fixture
def table() -> Iterator[Any]:
    with mock_aws():
        yield boto3.resource("dynamodb", region_name="us-east-1").create_table(
            TableName="runs",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"}
                for name in ("run_id", "record_type", "created_at")
            ],
            KeySchema=[{"AttributeName": "run_id", "KeyType": "HASH"}],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "by-creation",
                    "KeySchema": [
                        {"AttributeName": "record_type", "KeyType": "HASH"},
                        {"AttributeName": "created_at", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "ALL"},
                }
            ],
        )


def put(table: Any, run_id: str, second: int, **attributes: Any) -> None:
    at = f"2026-01-02T03:04:{second:02d}Z"
    item = {
        "run_id": run_id,
        "record_type": "run",
        "created_at": at,
        "history": [{"status": "RECEIVED", "at": at}],
    }
    table.put_item(Item={**item, **attributes})


def dropped(version: str) -> Dropped:
    return Dropped("photos", KEY, version, files=2, size=10, at=datetime.now(UTC))


def test_the_run_of_this_very_upload_is_found_among_others(table: Any) -> None:
    put(table, "cats-old", 1, manifest_key=KEY, manifest_version="v1")
    put(table, "cats-new", 2, manifest_key=KEY, manifest_version="v2")
    put(table, "dogs", 3, manifest_key="datasets/dogs/manifest.json", manifest_version="v2")
    table.put_item(Item={"run_id": "identity#0", "claimed_by": "cats-old"})
    assert records.wait_for_run(table, dropped("v2")) == "cats-new"
    assert records.wait_for_run(table, dropped("v1")) == "cats-old"


def test_an_upload_that_starts_nothing_is_an_error(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "SECONDS_TO_APPEAR", 0.2)
    with pytest.raises(CommandError, match="dead-letter queue"):
        records.wait_for_run(table, dropped("v9"))


def test_a_run_is_followed_to_its_final_status(table: Any) -> None:
    put(table, "cats", 1, status="TRAINING", observation={"loss": Decimal("0.5"), "step": Decimal(3)})
    seen = []
    for record in records.follow(table, "cats", limit=10, poll=0.01):
        seen.append((record["status"], record["observation"]["loss"], record["observation"]["step"]))
        put(table, "cats", 1, status="COMPLETED", observation={"loss": Decimal("0.25"), "step": Decimal(4)})
    assert seen == [("TRAINING", 0.5, 3), ("COMPLETED", 0.25, 4)]


def test_a_run_that_does_not_end_is_an_error(table: Any) -> None:
    put(table, "cats", 1, status="TRAINING")
    with pytest.raises(CommandError, match="stands at TRAINING"):
        list(records.follow(table, "cats", limit=0.2, poll=0.01))


@pytest.mark.parametrize("named", ["cats-0123", "cats-01", "cat"])
def test_a_run_is_found_by_the_beginning_of_its_id(table: Any, named: str) -> None:
    put(table, "cats-0123", 1, status="TRAINING")
    put(table, "dogs-0123", 2, status="TRAINING")
    assert records.find(table, named)["run_id"] == "cats-0123"


def test_a_beginning_of_several_runs_names_them_and_a_whole_id_does_not(table: Any) -> None:
    put(table, "cats-0123", 1, status="FAILED")
    put(table, "cats-0123-r2", 2, status="TRAINING")
    assert records.find(table, "cats-0123")["run_id"] == "cats-0123"
    with pytest.raises(CommandError, match="several runs: cats-0123-r2, cats-0123"):
        records.find(table, "cats")
    with pytest.raises(CommandError, match="there is no run dogs"):
        records.find(table, "dogs")


def test_the_history_lists_the_newest_run_first(table: Any) -> None:
    put(table, "cats", 1, status="COMPLETED", model={"uri": "s3://photos/cats.safetensors"})
    put(table, "dogs", 2, status="FAILED", failure={"cause": "The disk was full."})
    rows = [runs.row(record) for record in records.newest(table, 10)]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("dogs", "FAILED", "The disk was full."),
        ("cats", "COMPLETED", "s3://photos/cats.safetensors"),
    ]


def test_a_rejected_run_tells_how_many_problems_its_report_lists(table: Any) -> None:
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket="photos")
    findings = [{"severity": severity} for severity in ("error", "error", "error", "warning", "note")]
    s3.put_object(Bucket="photos", Key="runs/cats/report.json", Body=json.dumps({"findings": findings}))
    put(table, "cats", 2, status="REJECTED", report_uri="s3://photos/runs/cats/report.json")
    put(table, "dogs", 1, status="REJECTED", report_uri="s3://photos/runs/dogs/report.json")
    found = records.newest(table, 10)
    rows = [runs.row(record, runs.problems_of(s3, record)) for record in found]
    assert [row[-1] for row in rows] == [
        "3 problems, see s3://photos/runs/cats/report.json",
        "rejected, see s3://photos/runs/dogs/report.json",
    ]


def test_only_the_reports_of_rejected_runs_are_read(table: Any) -> None:
    put(table, "cats", 2, status="REJECTED", report_uri="s3://photos/runs/cats/report.json")
    put(table, "dogs", 1, status="COMPLETED", report_uri="s3://photos/runs/dogs/report.json")
    read = []
    shown = runs.table_of(records.newest(table, 10), lambda record: read.append(record["run_id"]) or 1)
    assert read == ["cats"]
    assert list(shown.columns[-1].cells) == ["1 problem, see s3://photos/runs/cats/report.json", ""]


def test_the_account_and_region_of_a_command_are_said_as_aws_names_them(table: Any) -> None:
    assert place_of(Account("mine", "eu-west-1")) == "AWS account 123456789012, region eu-west-1, stack mine"
