"""Rules deliver with permission, and what cannot be delivered goes to a dead-letter queue."""

import json
from typing import Any

import pytest

from tests.embedded_aws.flows import Flows
from tests.embedded_aws.running import RunningEmbeddedAws, allow, policy_document, wait_for

EVENTS = {"Principal": {"Service": "events.amazonaws.com"}}


class Rule:
    """A rule on a custom source, with a dead-letter queue that EventBridge may write to."""

    def __init__(self, aws: RunningEmbeddedAws, name: str) -> None:
        self.aws, self.name = aws, name
        self.events, self.sqs = aws.client("events"), aws.client("sqs")
        self.arn = self.events.put_rule(Name=name, EventPattern=json.dumps({"source": [name]}))["RuleArn"]
        self.queue, self.queue_arn = self.create_queue(f"{name}-dead")
        self.open(self.queue, self.queue_arn)

    def create_queue(self, name: str) -> tuple[str, str]:
        url = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
        return url, attributes["QueueArn"]

    def open(self, url: str, arn: str) -> None:
        """Let this rule send to the queue."""
        source = {"ArnEquals": {"aws:SourceArn": self.arn}}
        statement = {**allow("sqs:SendMessage", arn), **EVENTS, "Condition": source}
        self.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy_document(statement)})

    def target(self, arn: str, **more: Any) -> None:
        target = {"Id": "1", "Arn": arn, "DeadLetterConfig": {"Arn": self.queue_arn}, **more}
        self.events.put_targets(Rule=self.name, Targets=[target])

    def emit(self, **detail: Any) -> None:
        entry = {"Source": self.name, "DetailType": "Test", "Detail": json.dumps(detail)}
        assert self.events.put_events(Entries=[entry])["FailedEntryCount"] == 0

    def messages(self, url: str) -> list[dict[str, Any]]:
        request = {"QueueUrl": url, "WaitTimeSeconds": 1, "MessageAttributeNames": ["All"]}
        return list(wait_for(lambda: self.sqs.receive_message(**request).get("Messages")))

    def buried(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The event in the dead-letter queue and its attributes."""
        [message] = self.messages(self.queue)
        attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
        return json.loads(message["Body"]), attributes


@pytest.fixture
def rule(aws: RunningEmbeddedAws, unique: str) -> Rule:
    return Rule(aws, unique)


def test_a_function_needs_a_permission_for_the_rule(
    aws: RunningEmbeddedAws, flows: Flows, rule: Rule
) -> None:
    function = aws.create_function(
        rule.name, "def handler(event, context):\n    print('got', event['detail'])\n", flows.function_role
    )
    rule.target(function)
    rule.emit(n=1)
    event, attributes = rule.buried()
    assert event["detail"] == {"n": 1}
    assert (attributes["ERROR_CODE"], attributes["RULE_ARN"], attributes["TARGET_ARN"]) == (
        "NO_PERMISSIONS",
        rule.arn,
        function,
    )
    aws.client("lambda").add_permission(
        FunctionName=rule.name,
        StatementId="rule",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=rule.arn,
    )
    rule.emit(n=2)
    wait_for(lambda: printed(aws, rule.name, "got {'n': 2}"))


def printed(aws: RunningEmbeddedAws, function: str, text: str) -> int:
    logs = aws.client("logs")
    groups = logs.describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{function}")["logGroups"]
    events = logs.filter_log_events(logGroupName=groups[0]["logGroupName"])["events"] if groups else []
    return sum(event["message"].count(text) for event in events)


def test_lambda_repeats_a_failing_invocation_and_then_sends_it_to_its_destination(
    aws: RunningEmbeddedAws, flows: Flows, rule: Rule
) -> None:
    """The rule has delivered: its own dead-letter queue stays empty."""
    code = (
        "def handler(event, context):\n    print('attempt number')\n    raise ValueError(event['detail'])\n"
    )
    function = aws.create_function(rule.name, code, flows.function_role)
    url, arn = rule.create_queue(f"{rule.name}-failed")
    lambda_client = aws.client("lambda")
    lambda_client.put_function_event_invoke_config(
        FunctionName=rule.name, MaximumRetryAttempts=1, DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    lambda_client.add_permission(
        FunctionName=rule.name,
        StatementId="rule",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=rule.arn,
    )
    rule.target(function)
    rule.emit(n=1)
    [message] = rule.messages(url)
    failed = json.loads(message["Body"])
    assert failed["requestPayload"]["detail"] == {"n": 1}
    assert failed["responsePayload"]["errorType"] == "ValueError"
    assert printed(aws, rule.name, "attempt number") == 2
    assert "Messages" not in rule.sqs.receive_message(QueueUrl=rule.queue)


@pytest.mark.parametrize(
    "target",
    [
        "arn:aws:lambda:us-east-1:000000000000:function:missing",
        "arn:aws:states:us-east-1:000000000000:stateMachine:missing",
    ],
)
def test_an_event_for_a_missing_target_goes_to_the_dead_letter_queue(
    flows: Flows, rule: Rule, target: str
) -> None:
    rule.target(target, RoleArn=flows.role)
    rule.emit(n=1)
    event, attributes = rule.buried()
    assert (event["detail"], attributes["ERROR_CODE"]) == ({"n": 1}, "RESOURCE_NOT_FOUND")


def test_a_state_machine_is_started_with_the_targets_role_and_the_transformed_event(
    aws: RunningEmbeddedAws, flows: Flows, rule: Rule
) -> None:
    machine = flows.create(States={"Done": {"Type": "Succeed"}})
    role = aws.create_role(
        rule.name, "events.amazonaws.com", allow("states:StartExecution", f"{machine}-other")
    )
    transformer = {"InputPathsMap": {"n": "$.detail.n"}, "InputTemplate": '{"number": <n>}'}
    rule.target(machine, RoleArn=role, InputTransformer=transformer)
    rule.emit(n=5)
    assert rule.buried()[1]["ERROR_CODE"] == "NO_PERMISSIONS"
    aws.client("iam").put_role_policy(
        RoleName=rule.name,
        PolicyName="all",
        PolicyDocument=policy_document(allow("states:StartExecution", machine)),
    )
    rule.emit(n=6)
    [execution] = wait_for(lambda: flows.client.list_executions(stateMachineArn=machine)["executions"])
    described = flows.client.describe_execution(executionArn=execution["executionArn"])
    assert json.loads(described["input"]) == {"number": 6}


def test_a_queue_needs_a_policy_that_lets_the_rule_in(rule: Rule) -> None:
    url, arn = rule.create_queue(f"{rule.name}-target")
    rule.target(arn)
    rule.emit(n=1)
    assert rule.buried()[1]["ERROR_CODE"] == "NO_PERMISSIONS"
    rule.open(url, arn)
    rule.emit(n=2)
    [message] = rule.messages(url)
    assert json.loads(message["Body"])["detail"] == {"n": 2}


def test_a_topic_needs_a_policy_that_lets_eventbridge_in(aws: RunningEmbeddedAws, rule: Rule) -> None:
    sns = aws.client("sns")
    topic = sns.create_topic(Name=rule.name)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint=f"{rule.name}@example.com")
    rule.target(topic, Input='"a build failed"')
    rule.emit(n=1)
    assert rule.buried()[1]["ERROR_CODE"] == "NO_PERMISSIONS"
    statement = {**allow("sns:Publish", topic), **EVENTS}
    sns.set_topic_attributes(
        TopicArn=topic, AttributeName="Policy", AttributeValue=policy_document(statement)
    )
    rule.emit(n=2)
    mails = wait_for(lambda: [mail for mail in aws.mails() if mail["To"] == f"{rule.name}@example.com"])
    assert mails[0].get_content().strip() == '"a build failed"'


def test_a_build_project_is_built_with_the_targets_role_at_the_events_commit(
    aws: RunningEmbeddedAws, flows: Flows, rule: Rule
) -> None:
    aws.create_role(f"{rule.name}-build", "codebuild.amazonaws.com", allow("*"))
    build = aws.client("codebuild")
    project = build.create_project(
        name=rule.name,
        source={
            "type": "NO_SOURCE",
            "buildspec": "version: 0.2\nphases:\n  build:\n    commands:\n      - true\n",
        },
        artifacts={"type": "NO_ARTIFACTS"},
        environment={
            "type": "LINUX_CONTAINER",
            "image": "aws/codebuild/standard:8.0",
            "computeType": "BUILD_GENERAL1_SMALL",
        },
        serviceRole=f"arn:aws:iam::000000000000:role/{rule.name}-build",
    )["project"]["arn"]
    role = aws.create_role(rule.name, "events.amazonaws.com", allow("codebuild:StartBuild", project))
    transformer = {
        "InputPathsMap": {"commit": "$.detail.commitId"},
        "InputTemplate": '{"sourceVersion": <commit>}',
    }
    rule.target(project, RoleArn=role, InputTransformer=transformer)
    rule.emit(commitId="0123abc")
    builds = wait_for(lambda: build.list_builds_for_project(projectName=rule.name)["ids"])
    assert build.batch_get_builds(ids=builds)["builds"][0]["sourceVersion"] == "0123abc"


def test_an_upload_reaches_a_rule_with_its_key_as_it_is(aws: RunningEmbeddedAws, rule: Rule) -> None:
    """ "Object Created" events carry the key raw; S3's own notifications would carry it URL-encoded."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=rule.name)
    s3.put_bucket_notification_configuration(
        Bucket=rule.name, NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    pattern = {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": [rule.name]}, "object": {"key": [{"wildcard": "*/manifest.json"}]}},
    }
    rule.events.put_rule(Name=rule.name, EventPattern=json.dumps(pattern))
    url, arn = rule.create_queue(f"{rule.name}-target")
    rule.open(url, arn)
    rule.target(arn)
    for key in ("datasets/a b+c é/manifest.json", "datasets/a/other.json", "manifest.json"):
        s3.put_object(Bucket=rule.name, Key=key, Body=b"{}")
    [message] = rule.messages(url)
    detail = json.loads(message["Body"])["detail"]
    assert detail["object"]["key"] == "datasets/a b+c é/manifest.json"
    assert detail["reason"] == "PutObject"
