"""Stacks hold what the application's template needs."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.embedded_aws.flows import Flows
from tests.embedded_aws.running import RunningEmbeddedAws, wait_for

DEFINITION = """\
Comment: written in YAML
QueryLanguage: JSONata
StartAt: Done
States:
  Done:
    Type: Succeed
    Output: "{% ${Number} + 1 %}"
"""


def deploy(aws: RunningEmbeddedAws, name: str, template: dict[str, Any]) -> str:
    """Create or update the stack and give the status in which it comes to rest."""
    stacks = aws.client("cloudformation")
    body = json.dumps(template)
    try:
        stacks.create_stack(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_NAMED_IAM"])
    except stacks.exceptions.AlreadyExistsException:
        stacks.update_stack(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_NAMED_IAM"])

    def at_rest() -> Any:
        status = stacks.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
        return None if status.endswith("IN_PROGRESS") else status

    return str(wait_for(at_rest))


def state_machine(flows: Flows, **properties: Any) -> dict[str, Any]:
    properties = {"RoleArn": flows.role, "DefinitionSubstitutions": {"Number": 41}, **properties}
    return {"Machine": {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}}


def test_a_state_machine_may_be_written_in_yaml(aws: RunningEmbeddedAws, flows: Flows, unique: str) -> None:
    resources = state_machine(flows, StateMachineName=unique, DefinitionString=DEFINITION)
    assert deploy(aws, unique, {"Resources": resources}) == "CREATE_COMPLETE"
    arn = f"arn:aws:states:us-east-1:000000000000:stateMachine:{unique}"
    started = flows.client.start_execution(stateMachineArn=arn)["executionArn"]
    assert flows.ended(started)["output"] == 42


def test_a_table_has_its_indexes_and_time_to_live(aws: RunningEmbeddedAws, unique: str) -> None:
    table = {
        "TableName": unique,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": "S"} for name in ("run_id", "record_type", "created_at")
        ],
        "KeySchema": [{"AttributeName": "run_id", "KeyType": "HASH"}],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "by-creation",
                "KeySchema": [
                    {"AttributeName": "record_type", "KeyType": "HASH"},
                    {"AttributeName": "created_at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        "TimeToLiveSpecification": {"AttributeName": "expires_at", "Enabled": True},
    }
    resources = {"Runs": {"Type": "AWS::DynamoDB::Table", "Properties": table}}
    assert deploy(aws, unique, {"Resources": resources}) == "CREATE_COMPLETE"
    dynamodb = aws.client("dynamodb")
    for run_id, created_at in (("b", "2026-01-02"), ("a", "2026-01-01")):
        item = {"run_id": run_id, "record_type": "run", "created_at": created_at}
        dynamodb.put_item(TableName=unique, Item={name: {"S": value} for name, value in item.items()})
    found = dynamodb.query(
        TableName=unique,
        IndexName="by-creation",
        KeyConditionExpression="record_type = :run",
        ExpressionAttributeValues={":run": {"S": "run"}},
    )["Items"]
    assert [item["run_id"]["S"] for item in found] == ["a", "b"]
    ttl = dynamodb.describe_time_to_live(TableName=unique)["TimeToLiveDescription"]
    assert (ttl["AttributeName"], ttl["TimeToLiveStatus"]) == ("expires_at", "ENABLED")


def test_a_rules_target_keeps_its_role_transformer_and_dead_letter_queue(
    aws: RunningEmbeddedAws, flows: Flows, unique: str
) -> None:
    target = {
        "Id": "build",
        "Arn": "arn:aws:codebuild:us-east-1:000000000000:project/x",
        "RoleArn": flows.role,
        "InputTransformer": {
            "InputPathsMap": {"c": "$.detail.commitId"},
            "InputTemplate": '{"sourceVersion": <c>}',
        },
        "DeadLetterConfig": {"Arn": {"Fn::GetAtt": ["Dead", "Arn"]}},
        "RetryPolicy": {"MaximumRetryAttempts": 3},
    }
    resources = {
        "Dead": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": unique}},
        "Rule": {
            "Type": "AWS::Events::Rule",
            "Properties": {"Name": unique, "EventPattern": {"source": ["x"]}, "Targets": [target]},
        },
    }
    assert deploy(aws, unique, {"Resources": resources}) == "CREATE_COMPLETE"
    [known] = aws.client("events").list_targets_by_rule(Rule=unique)["Targets"]
    queue = {"Arn": f"arn:aws:sqs:us-east-1:000000000000:{unique}"}
    assert known == {**target, "DeadLetterConfig": queue}


def test_a_type_that_is_not_emulated_is_refused_by_name(aws: RunningEmbeddedAws, unique: str) -> None:
    with pytest.raises(ClientError, match="AWS::Nothing::Here"):
        deploy(aws, unique, {"Resources": {"Odd": {"Type": "AWS::Nothing::Here"}}})
