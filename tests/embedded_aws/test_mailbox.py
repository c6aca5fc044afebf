"""An e-mail of SNS is a file."""

import pytest

from tests.embedded_aws.running import RunningEmbeddedAws


@pytest.fixture
def topic(aws: RunningEmbeddedAws, unique: str) -> str:
    return str(aws.client("sns").create_topic(Name=unique)["TopicArn"])


def test_each_subscriber_gets_the_message_with_its_attributes_as_headers(
    aws: RunningEmbeddedAws, topic: str, unique: str
) -> None:
    sns = aws.client("sns")
    for name in ("a", "b"):
        sns.subscribe(TopicArn=topic, Protocol="email", Endpoint=f"{name}-{unique}@example.com")
    text = "Your model is ready: s3://bucket/model.safetensors\n" + "x" * 2000 + "\nÜber"
    sent = sns.publish(
        TopicArn=topic,
        Subject="Run cats-0123456789ab has completed",
        Message=text,
        MessageAttributes={"run_id": {"DataType": "String", "StringValue": "cats-0123456789ab"}},
    )
    mails = [mail for mail in aws.mails() if unique in mail["To"]]
    assert {mail["To"] for mail in mails} == {f"a-{unique}@example.com", f"b-{unique}@example.com"}
    for mail in mails:
        assert mail["Subject"] == "Run cats-0123456789ab has completed"
        assert mail["X-Attribute-run_id"] == "cats-0123456789ab"
        assert mail["X-Topic-Arn"] == topic
        assert sent["MessageId"] in mail["Message-ID"]
        assert mail.get_content().strip() == text


def test_a_message_without_a_subject_has_that_of_sns(
    aws: RunningEmbeddedAws, topic: str, unique: str
) -> None:
    sns = aws.client("sns")
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint=f"{unique}@example.com")
    sns.publish(TopicArn=topic, Message="hello")
    [mail] = [mail for mail in aws.mails() if mail["To"] == f"{unique}@example.com"]
    assert mail["Subject"] == "AWS Notification Message"


def test_a_filter_policy_keeps_messages_away(aws: RunningEmbeddedAws, topic: str, unique: str) -> None:
    sns = aws.client("sns")
    sns.subscribe(
        TopicArn=topic,
        Protocol="email",
        Endpoint=f"{unique}@example.com",
        Attributes={"FilterPolicy": '{"kind": ["failed"]}'},
    )
    for kind in ("completed", "failed"):
        attributes = {"kind": {"DataType": "String", "StringValue": kind}}
        sns.publish(TopicArn=topic, Message=kind, MessageAttributes=attributes)
    assert [m.get_content().strip() for m in aws.mails() if m["To"] == f"{unique}@example.com"] == ["failed"]


def test_a_message_reaches_nobody_but_the_topics_subscribers(aws: RunningEmbeddedAws, topic: str) -> None:
    before = len(aws.mails())
    aws.client("sns").publish(TopicArn=topic, Message="hello")
    assert len(aws.mails()) == before
