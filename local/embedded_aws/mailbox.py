"""SNS e-mail: every delivered message becomes a file that any mail program opens.

The subscription is confirmed at once; on AWS a person clicks the link in the first mail.
"""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import default
from typing import Any

from ministack.services import sns

from local.embedded_aws.patching import replace
from local.embedded_aws.settings import settings

SENDER = Address("AWS Notifications", "no-reply", "sns.amazonaws.com")
DEFAULT_SUBJECT = "AWS Notification Message"


def install() -> None:
    def deliver_to_all(*message: Any, **more: Any) -> None:
        deliver(*message, **more)
        fan_out(*message, **more)

    fan_out = replace(sns, "_fanout", deliver_to_all)


def deliver(
    topic_arn: str,
    message_id: str,
    message: str,
    subject: str | None,
    message_structure: str = "",
    message_attributes: Mapping[str, Mapping[str, str]] | None = None,
    *_deduplication: str,
    **_more: str,
) -> None:
    """Write one file for each e-mail subscription of the topic whose filter the message passes."""
    topic = sns._topic_by_arn_any_scope(topic_arn) or {"subscriptions": []}
    attributes = message_attributes or {}
    for subscription in topic["subscriptions"]:
        protocol = subscription.get("protocol")
        if protocol not in ("email", "email-json"):
            continue
        text = sns._resolve_message_for_protocol(message, message_structure, protocol)
        if not sns._matches_filter_policy(subscription, attributes, text):
            continue
        if protocol == "email-json":
            text = sns._build_envelope(topic_arn, message_id, text, subject, attributes, False)
        write_mail(
            subscription["endpoint"], message_id, subject or DEFAULT_SUBJECT, text, topic_arn, attributes
        )


def write_mail(
    recipient: str,
    message_id: str,
    subject: str,
    text: Any,
    topic_arn: str,
    attributes: Mapping[str, Mapping[str, str]],
) -> None:
    """Write `<unix time>-<message id>-<recipient>.eml`.

    It appears at once: whoever lists the mailbox sees whole messages only.
    """
    mail = EmailMessage(policy=default.clone(max_line_length=998))
    mail["From"] = SENDER
    mail["To"] = recipient
    mail["Subject"] = subject
    mail["Date"] = datetime.now(UTC)
    mail["Message-ID"] = f"<{message_id}@sns.amazonaws.com>"
    mail["X-Topic-Arn"] = topic_arn
    for name, attribute in attributes.items():
        mail[f"X-Attribute-{name}"] = attribute.get("StringValue", "")
    mail.set_content(text if isinstance(text, str) else json.dumps(text))
    name = f"{time.time():.6f}-{message_id}-{recipient.replace('/', '_')}.eml"
    unfinished = settings().mailbox / f".{name}.part"
    unfinished.write_bytes(bytes(mail))
    unfinished.rename(settings().mailbox / name)
