"""Dead letters: what EventBridge and Lambda leave in a queue when an event was not processed.

Two shapes (EventBridge user guide, "Using dead-letter queues"; Lambda developer guide, "Adding a destination"): a rule
whose target could not be reached leaves the event itself, with message attributes for target and error; a function that
failed as often as it may leaves an envelope around the event.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

SUFFIX = "DeadLetters"  # of the queues' logical ids in template.yaml


@dataclass(frozen=True)
class Letter:
    """`target` is the ARN of what should have received the event; empty where the letter does not say."""

    message_id: str
    receipt: str
    sent_at: datetime
    target: str
    error: str
    event: Mapping[str, Any]

    @property
    def subject(self) -> str:
        """What the event is about, in one line."""
        detail = self.event.get("detail") or {}
        if "object" in detail:
            return f"s3://{detail['bucket']['name']}/{detail['object']['key']}"
        names = ("executionArn", "pipelineExecutionArn", "TrainingJobName", "commitId", "build-id")
        named = next((str(detail[name]) for name in names if detail.get(name)), "")
        return f"{self.event.get('detail-type', 'no event')} {named}".strip()


def hop_of(logical_id: str) -> str | None:
    """`EndedExecutionDeadLetters` → `ended-execution`; None for a queue of another kind."""
    name = logical_id.removesuffix(SUFFIX)
    if name == logical_id:
        return None
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def read(message: Mapping[str, Any]) -> Letter:
    """A message of ReceiveMessage, with all its attributes."""
    try:
        body = json.loads(message["Body"])
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    attributes = {
        name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()
    }
    if "requestPayload" in body:
        target = str(body.get("requestContext", {}).get("functionArn", ""))
        event, error = body["requestPayload"], _error_of(body.get("responsePayload") or {})
    else:
        target, event = attributes.get("TARGET_ARN", ""), body
        error = ": ".join(filter(None, (attributes.get("ERROR_CODE"), attributes.get("ERROR_MESSAGE"))))
    return Letter(
        message_id=message["MessageId"],
        receipt=message["ReceiptHandle"],
        sent_at=datetime.fromtimestamp(int(message["Attributes"]["SentTimestamp"]) / 1000, UTC),
        target=re.sub(r":\$LATEST$", "", target),
        error=error or "no error was recorded",
        event=event if isinstance(event, dict) else {},
    )


def _error_of(payload: Mapping[str, Any]) -> str:
    """Of what a failing function answers."""
    return ": ".join(filter(None, (payload.get("errorType"), payload.get("errorMessage"))))
