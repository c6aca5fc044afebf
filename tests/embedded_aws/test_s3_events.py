"""What S3 tells EventBridge (docs.aws.amazon.com, S3 User Guide, "EventBridge event message structure")."""

import json

import pytest

from tests.embedded_aws.running import RunningEmbeddedAws, policy_document, wait_for


@pytest.mark.parametrize("versioned", [True, False])
def test_the_event_names_the_version_of_an_object_in_a_versioned_bucket(
    aws: RunningEmbeddedAws, unique: str, versioned: bool
) -> None:
    s3, events, sqs = aws.client("s3"), aws.client("events"), aws.client("sqs")
    s3.create_bucket(Bucket=unique)
    if versioned:
        s3.put_bucket_versioning(Bucket=unique, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_notification_configuration(
        Bucket=unique, NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    url = sqs.create_queue(QueueName=unique)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy_document(statement)})
    pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [unique]}}}
    events.put_rule(Name=unique, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=unique, Targets=[{"Id": "1", "Arn": arn}])

    answer = s3.put_object(Bucket=unique, Key="a.txt", Body=b"a")

    [message] = wait_for(lambda: sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1).get("Messages"))
    told = json.loads(message["Body"])["detail"]["object"]
    assert told.get("version-id") == answer.get("VersionId")
    assert (told.get("version-id") is not None) == versioned
