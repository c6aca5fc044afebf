"""DynamoDB: the record of each run, and who claims which identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from fine_tuning.aws.sdk import client
from fine_tuning.aws.translation import condition_failed, translated
from fine_tuning.aws.typed_items import plain, typed
from fine_tuning.errors import RunUnknownError
from fine_tuning.run import Run
from fine_tuning.statuses import FINAL, OF_MAIL, is_final, predecessors

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

_BY_CREATION = "by-creation"
_BY_PIPELINE_EXECUTION = "by-pipeline-execution"
_NEWEST = 100  # records that are looked at for what runs really took


@dataclass(frozen=True)
class Advance:
    """What became of a change of status.

    `unchanged`: it has that status already; `refused`: another one is final or later.
    """

    outcome: Literal["changed", "unchanged", "refused"]
    status: str


class RunRecords:
    """The run table. `clock` gives the time that goes into the history."""

    def __init__(self, table_name: str, clock: Callable[[], datetime]) -> None:
        self._table = table_name
        self._clock = clock

    @property
    def _dynamodb(self) -> DynamoDBClient:
        dynamodb: DynamoDBClient = client("dynamodb")
        return dynamodb

    def create(self, run: Run, execution_arn: str) -> bool:
        """Writes the record RECEIVED; False where it exists already, whatever it has become."""
        now = self._now()
        record = {
            **run.as_payload(),
            "record_type": "run",
            "status": "RECEIVED",
            "dataset": run.dataset,
            "created_at": now,
            "updated_at": now,
            "history": [{"status": "RECEIVED", "at": now}],
            "execution_arn": execution_arn,
            "report_uri": run.uri(run.report_key),
            "notifications": [],
        }
        return self._put_once(record)

    def get(self, run_id: str) -> dict[str, Any] | None:
        with translated(f"read the record of {run_id}"):
            answer = self._dynamodb.get_item(TableName=self._table, Key=_key(run_id), ConsistentRead=True)
        return plain(answer["Item"]) if "Item" in answer else None

    def find(self, run_id: str) -> dict[str, Any]:
        record = self.get(run_id)
        if record is None:
            raise RunUnknownError(f"There is no record of the run {run_id}.", "Drop the dataset again.")
        return record

    def run_id_of_pipeline_execution(self, pipeline_execution_id: str) -> str | None:
        with translated(f"find the run of the pipeline execution {pipeline_execution_id}"):
            answer = self._dynamodb.query(
                TableName=self._table,
                IndexName=_BY_PIPELINE_EXECUTION,
                KeyConditionExpression="pipeline_execution_id = :id",
                ExpressionAttributeValues=typed({":id": pipeline_execution_id}),
                Limit=1,
            )
        items = answer.get("Items", [])
        return str(plain(items[0])["run_id"]) if items else None

    def in_flight(self, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """The records of runs created in that span that have not come to their end."""
        return self._created(since, until, "NOT #status IN ({final})")

    def untold(self, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """The records of runs created in that span that came to their end, and nobody was told of it."""
        return self._created(since, until, "#status IN ({final}) AND attribute_not_exists(told)")

    def _created(self, since: datetime, until: datetime, condition: str) -> list[dict[str, Any]]:
        final = {f":f{number}": status for number, status in enumerate(sorted(FINAL))}
        span = {":type": "run", ":since": _moment(since), ":until": _moment(until)}
        with translated("list the runs"):
            pages = self._dynamodb.get_paginator("query").paginate(
                TableName=self._table,
                IndexName=_BY_CREATION,
                KeyConditionExpression="record_type = :type AND created_at BETWEEN :since AND :until",
                FilterExpression=condition.format(final=", ".join(final)),
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues=typed({**span, **final}),
            )
            return [plain(item) for page in pages for item in page["Items"]]

    def newest_completed(self) -> list[dict[str, Any]]:
        """The completed ones among the newest runs, as many as one page of the index holds."""
        with translated("list the newest completed runs"):
            answer = self._dynamodb.query(
                TableName=self._table,
                IndexName=_BY_CREATION,
                KeyConditionExpression="record_type = :type",
                FilterExpression="#status = :completed",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues=typed({":type": "run", ":completed": "COMPLETED"}),
                ScanIndexForward=False,
                Limit=_NEWEST,
            )
        return [plain(item) for item in answer["Items"]]

    def advance(
        self,
        run_id: str,
        status: str,
        attributes: Mapping[str, Any] | None = None,
        attempt: int | None = None,
    ) -> Advance:
        """Changes the status if it may follow the present one, and sets attributes with it.

        Args:
            attempt: the start of the pipeline that this is about; refused where the record knows of a later one.
        """
        now = self._now()
        allowed = sorted(predecessors(status))
        places = {f":p{number}": name for number, name in enumerate(allowed)}
        condition = f"#status IN ({', '.join(places)})" if places else "attribute_not_exists(run_id)"
        values = {":to": status, ":change": [{"status": status, "at": now}], ":none": [], **places}
        extra = ["#status = :to", "history = list_append(if_not_exists(history, :none), :change)"]
        if self._update(run_id, attributes or {}, condition, values, extra, attempt):
            return Advance("changed", status)
        current = str(self.find(run_id)["status"])
        if current != status:
            return Advance("refused", current)
        # What a run ended with was told; nobody who comes later changes it.
        is_set = (
            is_final(status)
            or not attributes
            or self._update(run_id, attributes, "#status = :is", {":is": status}, [], attempt)
        )
        return Advance("unchanged" if is_set else "refused", current)

    def note(
        self,
        run_id: str,
        attributes: Mapping[str, Any],
        *,
        attempt: int | None = None,
        pipeline_execution_arn: str | None = None,
    ) -> bool:
        """Sets attributes without a change of status; False where there is no such run, or it is not meant.

        Args:
            attempt: as of `advance`.
            pipeline_execution_arn: what is noted was seen of this one; the record must know no other.
        """
        condition, values = "attribute_exists(run_id) AND attribute_exists(#status)", {}
        if pipeline_execution_arn is not None:
            condition += " AND pipeline_execution_arn = :of"
            values[":of"] = pipeline_execution_arn
        return self._update(run_id, attributes, condition, values, [], attempt)

    def forget_token(self, run_id: str, token: str) -> None:
        """Removes an answered task token, unless the flow has stored a newer one."""
        self._write(
            run_id,
            UpdateExpression="REMOVE task_token",
            ConditionExpression="task_token = :token",
            ExpressionAttributeValues=typed({":token": token}),
        )

    def add_notification(self, run_id: str, kind: str, message_id: str) -> None:
        """Lists a mail once, however often this is called for it; `told` is the kind that told of the end."""
        entry = {"kind": kind, "message_id": message_id}
        known = {n["message_id"] for n in self.find(run_id).get("notifications", [])}
        if message_id not in known:
            extra = ["notifications = list_append(if_not_exists(notifications, :none), :entry)"]
            values = {":none": [], ":entry": [{**entry, "at": self._now()}]}
            told = {"told": kind} if kind in OF_MAIL else {}
            self._update(run_id, told, "attribute_exists(run_id)", values, extra)

    def claim(self, identity: str, run_id: str, instead_of: str | None = None) -> str:
        """Claims an identity; the answer is the run that has it now.

        Args:
            instead_of: a run whose claim may be taken over, because it did not make a model.
        """
        key = f"identity#{identity}"
        if self._put_once({"run_id": key, "claimed_by": run_id}):
            return run_id
        if instead_of is not None:
            self._write(
                key,
                UpdateExpression="SET claimed_by = :by",
                ConditionExpression="claimed_by = :before",
                ExpressionAttributeValues=typed({":by": run_id, ":before": instead_of}),
            )
        return str(self.find(key)["claimed_by"])

    def _put_once(self, item: Mapping[str, Any]) -> bool:
        with translated(f"record {item['run_id']}"):
            try:
                self._dynamodb.put_item(
                    TableName=self._table,
                    Item=typed(item),
                    ConditionExpression="attribute_not_exists(run_id)",
                )
            except self._dynamodb.exceptions.ClientError as cause:
                if not condition_failed(cause):
                    raise
                return False
        return True

    def _update(
        self,
        run_id: str,
        attributes: Mapping[str, Any],
        condition: str,
        values: dict[str, Any],
        extra: list[str],
        attempt: int | None = None,
    ) -> bool:
        """SET attributes and `extra` clauses under a condition; False where it does not hold.

        `attempt` is kept, and is a condition itself: no earlier one overwrites what a later one wrote.
        """
        if attempt is not None:
            attributes = {"attempt": attempt, **attributes}
            condition += " AND (attribute_not_exists(attempt) OR attempt <= :attempt)"
            values = {**values, ":attempt": attempt}
        names = {f"#a{number}": name for number, name in enumerate(attributes)}
        given = {f":a{number}": value for number, value in enumerate(attributes.values())}
        clauses = [f"#a{number} = :a{number}" for number in range(len(attributes))]
        clauses += [*extra, "updated_at = :now"]
        expression = "SET " + ", ".join(clauses)
        if "#status" in expression + condition:
            names["#status"] = "status"
        optional: dict[str, Any] = {"ExpressionAttributeNames": names} if names else {}
        return self._write(
            run_id,
            UpdateExpression=expression,
            ConditionExpression=condition,
            ExpressionAttributeValues=typed({**given, **values, ":now": self._now()}),
            **optional,
        )

    def _write(self, run_id: str, **arguments: Any) -> bool:
        with translated(f"change the record of {run_id}"):
            try:
                self._dynamodb.update_item(TableName=self._table, Key=_key(run_id), **arguments)
            except self._dynamodb.exceptions.ClientError as cause:
                if not condition_failed(cause):
                    raise
                return False
        return True

    def _now(self) -> str:
        return _moment(self._clock())


def _moment(moment: datetime) -> str:
    """As it is stored: ISO 8601 in UTC, so that text sorts as time does."""
    return moment.isoformat(timespec="milliseconds")


def _key(run_id: str) -> Any:
    return typed({"run_id": run_id})
