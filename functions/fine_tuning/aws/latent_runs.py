"""DynamoDB: which runs encoded the same images in the same way, one item of the run table for each way.

The last two, however they ended: the last one may have ended before it had any latents. What an earlier one kept, each
takes over before it trains, so that no longer list is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fine_tuning.aws.sdk import client
from fine_tuning.aws.translation import condition_failed, translated
from fine_tuning.aws.typed_items import plain, typed

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient


class LatentRuns:
    """The items `latents#<made with>`."""

    def __init__(self, table_name: str) -> None:
        self._table = table_name

    def enter(self, made_with: str, run_id: str) -> list[str]:
        """Puts a run first; the answer: those before it, the newest first. Safe to repeat."""
        dynamodb: DynamoDBClient = client("dynamodb")
        key = typed({"run_id": f"latents#{made_with}"})
        with translated(f"enter {run_id} among the runs that keep latents"):
            try:
                answer = dynamodb.update_item(
                    TableName=self._table,
                    Key=key,
                    # Both are read before either is set.
                    UpdateExpression="SET earlier = if_not_exists(newest, :run), newest = :run",
                    ConditionExpression="attribute_not_exists(newest) OR newest <> :run",
                    ExpressionAttributeValues=typed({":run": run_id}),
                    ReturnValues="ALL_OLD",
                )
                before = plain(answer.get("Attributes", {}))
            except dynamodb.exceptions.ClientError as cause:
                if not condition_failed(cause):
                    raise
                item = dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True)
                before = plain(item.get("Item", {}))
        named = (before.get("newest"), before.get("earlier"))
        return list(dict.fromkeys(str(each) for each in named if each not in (None, run_id)))
