"""DynamoDB: the slots of the runs that train, one item of the run table.

Whoever changes it writes what it has read plus one version, on the condition that nobody else did meanwhile. The item
holds some 4,000 waiting runs (400 KB); beyond that DynamoDB refuses the next one, which its user is told.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fine_tuning.aws.sdk import client
from fine_tuning.aws.translation import condition_failed, translated
from fine_tuning.aws.typed_items import plain, typed
from fine_tuning.errors import ServiceUnavailableError
from fine_tuning.slots import Slots

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

KEY = "slots"
_TRIES = 60
_LONGEST_PAUSE = 0.4  # seconds


class SlotItem:
    """The item, and the limit that the stack sets."""

    def __init__(self, table_name: str, limit: int, pause: Callable[[float], None] = time.sleep) -> None:
        self._table = table_name
        self._limit = limit
        self._pause = pause

    def request(self, run_id: str, created_at: str) -> tuple[Slots, set[str]]:
        """The slots with this run in them, and the runs that were given one by it."""
        return self._change(lambda slots: slots.requested(run_id, created_at))

    def release(self, *run_ids: str) -> tuple[Slots, set[str]]:
        """The slots without runs that are over, and the runs that were given one by it. Safe to repeat."""

        def without(slots: Slots) -> Slots:
            for run_id in run_ids:
                slots = slots.without(run_id)
            return slots

        return self._change(without)

    def read(self) -> Slots:
        return self._read()[0]

    def _change(self, change: Callable[[Slots], Slots]) -> tuple[Slots, set[str]]:
        for tried in range(_TRIES):
            before, version = self._read()
            after = change(before).granted(self._limit)
            if after == before or self._write(after, version):
                return after, set(after.holders - before.holders)
            # Somebody else was quicker; a pause of random length lets them pass one another.
            self._pause(random.uniform(0, min(_LONGEST_PAUSE, 0.01 * 2**tried)))
        raise ServiceUnavailableError("Too many runs ask for a slot at the same moment.", "Wait a while.")

    def _read(self) -> tuple[Slots, int]:
        dynamodb: DynamoDBClient = client("dynamodb")
        with translated("read the slots"):
            answer = dynamodb.get_item(TableName=self._table, Key=typed({"run_id": KEY}), ConsistentRead=True)
        item = plain(answer["Item"]) if "Item" in answer else {}
        return Slots(frozenset(item.get("holders", ())), item.get("queue", {})), item.get("version", 0)

    def _write(self, slots: Slots, version: int) -> bool:
        """False where the item is no longer what was read."""
        dynamodb: DynamoDBClient = client("dynamodb")
        condition = "version = :seen" if version else "attribute_not_exists(version)"
        values: dict[str, Any] = {
            ":holders": sorted(slots.holders),
            ":queue": dict(slots.queue),
            ":next": version + 1,
            **({":seen": version} if version else {}),
        }
        with translated("write the slots"):
            try:
                dynamodb.update_item(
                    TableName=self._table,
                    Key=typed({"run_id": KEY}),
                    UpdateExpression="SET holders = :holders, queue = :queue, version = :next",
                    ConditionExpression=condition,
                    ExpressionAttributeValues=typed(values),
                )
            except dynamodb.exceptions.ClientError as cause:
                if not condition_failed(cause):
                    raise
                return False
        return True
