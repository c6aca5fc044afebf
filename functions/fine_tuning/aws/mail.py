"""SNS: e-mails, each published once, and not too many at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fine_tuning.aws.mail_pace import MailPace
from fine_tuning.aws.sdk import client
from fine_tuning.aws.translation import translated
from fine_tuning.errors import FineTuningError, ServiceUnavailableError, TooManyMailsError
from fine_tuning.messages import Message
from fine_tuning.observability import logger

if TYPE_CHECKING:
    from types_boto3_sns.client import SNSClient
    from types_boto3_sns.type_defs import MessageAttributeValueTypeDef

# Longer than an execution's name stays taken (90 days), so that no late event repeats a mail.
_REMEMBERED_SECONDS = 100 * 24 * 3600


def attributes_of(message: Message) -> dict[str, MessageAttributeValueTypeDef]:
    """Typed as SNS wants them: only a number can be compared in a filter policy."""
    return {
        name: {"DataType": "String" if isinstance(value, str) else "Number", "StringValue": str(value)}
        for name, value in message.attributes.items()
    }


class Mail:
    """The topic, and the table that remembers what was published.

    `context` gives the Lambda context, which tells Powertools when this invocation ends; after that another
    one may publish what this one began.
    """

    def __init__(self, topic_arn: str, idempotency_table: str, context: Callable[[], Any]) -> None:
        self._topic_arn = topic_arn
        self._table = idempotency_table
        self._context = context

    def send_once(self, message: Message) -> str:
        """The SNS message id.

        Of this publication, or of the one that happened before for the same identity. A mail that went out is not
        told again because it could not be remembered.

        Raises TooManyMailsError where so many are on their way that this one has to come later.
        """
        from aws_lambda_powertools.utilities.idempotency import (
            DynamoDBPersistenceLayer,
            IdempotencyConfig,
            idempotent_function,
        )
        from aws_lambda_powertools.utilities.idempotency.exceptions import (
            IdempotencyAlreadyInProgressError,
            IdempotencyPersistenceLayerError,
        )

        config = IdempotencyConfig(expires_after_seconds=_REMEMBERED_SECONDS, lambda_context=self._context())
        layer = DynamoDBPersistenceLayer(table_name=self._table, boto3_client=client("dynamodb"))
        published: list[str] = []

        def publish(identity: dict[str, str], message: Message) -> str:
            published.append(self._publish(message))
            return published[0]

        once: Callable[..., str] = idempotent_function(
            publish,
            data_keyword_argument="identity",
            persistence_store=layer,
            config=config,
            key_prefix="mail",
        )
        try:
            return once(identity=dict(message.identity), message=message)
        except IdempotencyAlreadyInProgressError as cause:
            raise ServiceUnavailableError(
                f"Another delivery is publishing the mail '{message.kind}' right now.",
                "Nothing to do; this one is tried again.",
            ) from cause
        except IdempotencyPersistenceLayerError as problem:
            if published:
                logger.warning(
                    "A mail went out and is not remembered", kind=message.kind, problem=str(problem)
                )
                return published[0]
            # What the table answered, so that it is tried again, or told, as any other request is.
            with translated(f"remember the mail '{message.kind}'"):
                raise problem.__cause__ or problem from problem

    def _publish(self, message: Message) -> str:
        try:
            MailPace(self._table).wait_for_turn()
        except TooManyMailsError:
            raise
        except FineTuningError as problem:
            # That somebody is told counts for more than at what pace.
            logger.warning("A mail goes out unpaced", kind=message.kind, problem=str(problem))
        sns: SNSClient = client("sns")
        with translated(f"publish the mail '{message.kind}'"):
            answer = sns.publish(
                TopicArn=self._topic_arn,
                Subject=message.subject,
                Message=message.body,
                MessageAttributes=attributes_of(message),
            )
        return answer["MessageId"]
