"""Roles are enforced: whatever permission is taken away, the run says so and nothing is trained in silence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from local.cli import replay
from tests.end_to_end.conftest import Deployer
from tests.end_to_end.journey import Stack, dataset, eventually, quick_manifest


def _role(stack: Stack, logical: str) -> str:
    resources = stack.client("cloudformation").describe_stack_resources(StackName="kohya-ss-fine-tuning")
    found = [each for each in resources["StackResources"] if each["LogicalResourceId"] == logical]
    return str(found[0]["PhysicalResourceId"])


@contextmanager
def without(stack: Stack, role: str, sid: str) -> Iterator[None]:
    """The role lacks one statement of its inline policies for a while."""
    iam = stack.client("iam")
    name = _role(stack, role)
    taken = []
    for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        document: Any = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        document = json.loads(document) if isinstance(document, str) else document
        kept = [statement for statement in document["Statement"] if statement.get("Sid") != sid]
        if len(kept) != len(document["Statement"]):
            taken.append((policy, document))
            reduced = json.dumps({**document, "Statement": kept})
            if kept:
                iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=reduced)
            else:
                iam.delete_role_policy(RoleName=name, PolicyName=policy)
    assert taken, f"{role} has no statement {sid}"
    try:
        yield
    finally:
        for policy, document in taken:
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document))


def dead_letters(deployer: Deployer, hop: str) -> int:
    """How many events of a hop were given up and wait for a replay."""
    (queue,) = (each for each in replay.queues(deployer.account) if each.hop == hop)
    answer = deployer.account.client("sqs").get_queue_attributes(
        QueueUrl=queue.url, AttributeNames=["ApproximateNumberOfMessages"]
    )
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


NEEDED_BY_A_RUN = [
    ("TakeInventoryFunctionRole", "ListTheDataset"),
    ("TakeInventoryFunctionRole", "SeeUploadsThatGoOn"),
    ("TakeInventoryFunctionRole", "WriteTheInventory"),
    ("InspectShardFunctionRole", "ReadTheDataset"),
    ("PlanRunFunctionRole", "WriteThePlan"),
    ("ResolveImageFunctionRole", "FindTheImage"),
    ("ClaimIdentityFunctionRole", "ClaimOnce"),
    ("StateMachineRole", "StartThePipeline"),
    ("WatchTrainingFunctionRole", "LookAtThePipelineExecution"),
    ("PipelineRole", "RunTheTrainingJob"),
    ("PipelineRole", "HandOverTheTrainingRole"),
    ("TrainingRole", "ReadInputs"),
    ("TrainingRole", "WriteResults"),
    ("TrainingRole", "PullTheImage"),
    ("VerifyModelFunctionRole", "ReadTheModel"),
]
# A training of a few steps may be over before the flow learns that it cannot watch it.
MISSED_AFTER_TRAINING_BEGAN = {"WatchTrainingFunctionRole", "VerifyModelFunctionRole"}


@pytest.mark.parametrize(
    ("role", "sid"), NEEDED_BY_A_RUN, ids=[f"{role}-{sid}" for role, sid in NEEDED_BY_A_RUN]
)
def test_a_run_fails_openly_without_a_permission_that_it_needs(stack: Stack, role: str, sid: str) -> None:
    # Given a stack whose role lacks one statement
    with without(stack, role, sid):
        prefix = stack.drop(f"without-{role}-{sid}".lower(), dataset(2), quick_manifest())
        record = stack.record(prefix)
        # Then the run fails, and the user is told
        assert record["status"] == "FAILED"
        assert stack.execution_ended(record) == "FAILED"
        eventually(lambda: stack.mails(record["run_id"], "failed"), "a mail", explain=lambda: stack.mails())

    # and no job is left running, nor was one finished before the permission was missed
    def jobs() -> set[str]:
        return {job["TrainingJobStatus"] for job in stack.training_jobs(record["run_id"])}

    eventually(lambda: "InProgress" not in jobs(), "the end of the job", explain=jobs)
    assert "Completed" not in jobs() or role in MISSED_AFTER_TRAINING_BEGAN


def test_a_notifier_that_may_not_publish_is_stood_in_for(stack: Stack) -> None:
    with without(stack, "NotifyFunctionRole", "TellTheUser"):
        prefix = stack.drop("without-publish", {"2_phx/readme.txt": b"no image"}, quick_manifest())
        eventually(lambda: stack.records(prefix), "a run")
        run_id = stack.records(prefix)[0]["run_id"]
        eventually(lambda: stack.mails(run_id), "the mail", 60, lambda: stack.records(prefix))
