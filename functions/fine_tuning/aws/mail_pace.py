"""DynamoDB: when the next mail may go out, so that a burst of them does not end them all.

SNS suspends an e-mail subscription that gets more than 10 messages a second, and deletes it if nobody confirms it anew
(developer guide, "Email notifications"). Here no second gets more than 8: CloudWatch's alarms, which are not paced,
have the rest.

All functions share one item; `planned_until` is the moment (milliseconds since 1970) up to which mails are planned, one
each APART. AT_ONCE of them may go out ahead of that, so that a run by itself is told at once.
"""

from __future__ import annotations

from time import sleep, time
from typing import TYPE_CHECKING

from fine_tuning.aws.sdk import client
from fine_tuning.aws.translation import code_of, translated
from fine_tuning.aws.typed_items import plain, typed
from fine_tuning.errors import TooManyMailsError

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

KEY = "mail-pace"
APART = 250  # milliseconds
AT_ONCE = 4
# With what the requests may take (sdk.py) it is less than a function's minute.
PATIENCE = 20_000  # milliseconds
# Of a clock that was wrong: nobody plans so far ahead.
ABSURD = 2 * PATIENCE


class MailPace:
    """The item in the table that remembers what was published."""

    def __init__(self, table_name: str) -> None:
        self._table = table_name

    def wait_for_turn(self) -> None:
        """Returns when a mail may go out. Raises TooManyMailsError, at once, where that is more than PATIENCE away."""
        now = round(time() * 1000)
        sleep(max(0, self._turn(now) - now) / 1000)

    def _turn(self, now: int) -> int:
        """When, in milliseconds since 1970."""
        # Between the two somebody else may begin.
        for _ in range(2):
            if until := self._plan(
                "planned_until + :apart",
                "planned_until BETWEEN :now AND :latest",
                {":apart": APART, ":now": now, ":latest": now + PATIENCE},
            ):
                return max(now, until - AT_ONCE * APART)
            if self._plan(
                ":until",
                "attribute_not_exists(planned_until) OR planned_until < :now OR planned_until > :absurd",
                {":until": now + APART, ":now": now, ":absurd": now + ABSURD},
            ):
                return now
        raise TooManyMailsError(
            f"More than {PATIENCE // APART} mails wait to go out.", "Nothing to do; this one is tried again."
        )

    def _plan(self, until: str, condition: str, values: dict[str, int]) -> int | None:
        """`planned_until` as it is now; None where the condition does not hold."""
        dynamodb: DynamoDBClient = client("dynamodb")
        with translated("plan when a mail goes out"):
            try:
                answer = dynamodb.update_item(
                    TableName=self._table,
                    Key=typed({"id": KEY}),
                    UpdateExpression=f"SET planned_until = {until}",
                    ConditionExpression=condition,
                    ExpressionAttributeValues=typed(values),
                    ReturnValues="UPDATED_NEW",
                )
            except dynamodb.exceptions.ClientError as cause:
                if code_of(cause) != "ConditionalCheckFailedException":
                    raise
                return None
        return int(plain(answer["Attributes"])["planned_until"])
