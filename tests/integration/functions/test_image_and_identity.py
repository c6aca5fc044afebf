"""The training image, and whether the same dataset was trained already."""

from __future__ import annotations

import json

import boto3
import claim_identity
import notify
import pytest
import resolve_image
from botocore.stub import Stubber

from fine_tuning.aws import deployment, sdk
from tests.functions_data import IMAGE
from tests.integration.functions.conftest import ENVIRONMENT, REGION, Stack
from tests.integration.functions.runs import planned


def make_repositories(with_source: bool) -> None:
    boto3.client("ecr", region_name=REGION).create_repository(
        repositoryName=ENVIRONMENT["IMAGE_REPOSITORY_NAME"]
    )
    codebuild = boto3.client("codebuild", region_name=REGION)
    codebuild.create_project(
        name=ENVIRONMENT["BUILD_PROJECT_NAME"],
        source={"type": "CODECOMMIT", "location": "https://example"},
        artifacts={"type": "NO_ARTIFACTS"},
        environment={"type": "LINUX_CONTAINER", "image": "i", "computeType": "BUILD_GENERAL1_LARGE"},
        serviceRole="arn:aws:iam::123456789012:role/service-role/build",
    )
    stubbed = Stubber(sdk.client("codecommit"))
    if with_source:
        stubbed.add_response("get_branch", {"branch": {"branchName": "main", "commitId": "c0ffee"}})
    else:
        stubbed.add_client_error("get_branch", "BranchDoesNotExistException")
    stubbed.activate()


def test_given_an_image_then_it_is_resolved_to_its_digest(stack: Stack) -> None:
    run = planned(stack)
    make_repositories(with_source=True)
    ecr = boto3.client("ecr", region_name=REGION)
    manifest = json.dumps({"schemaVersion": 2, "config": {"digest": "sha256:1"}, "layers": []})
    put = ecr.put_image(
        repositoryName="kohya-ss-fine-tuning",
        imageManifest=manifest,
        imageManifestMediaType="application/vnd.docker.distribution.manifest.v2+json",
        imageTag="latest",
    )

    answer = resolve_image.handler({"run": run}, stack.context)

    assert answer["status"] == "ready"
    assert answer["image"].endswith(f"/kohya-ss-fine-tuning@{put['image']['imageId']['imageDigest']}")
    assert stack.record(run["run_id"])["status"] == "PLANNED"


def test_given_source_and_no_image_then_one_build_is_started_and_awaited(stack: Stack) -> None:
    run = planned(stack)
    make_repositories(with_source=True)

    answer = resolve_image.handler({"run": run}, stack.context)

    builds = sdk.client("codebuild").list_builds_for_project(projectName=ENVIRONMENT["BUILD_PROJECT_NAME"])[
        "ids"
    ]
    assert answer["status"] == "building"
    assert builds == [answer["build_id"]]
    assert answer["wait_seconds"] > 0
    assert stack.record(run["run_id"])["status"] == "WAITING_FOR_IMAGE"


def test_given_no_source_then_the_mail_names_the_command_and_a_later_drop_may_run(stack: Stack) -> None:
    run = planned(stack)
    make_repositories(with_source=False)

    answer = resolve_image.handler({"run": run}, stack.context)
    assert answer["status"] == "no_source"
    notify.handler({"run": run, "kind": "image-missing", "facts": answer}, stack.context)

    (mail,) = stack.mails()
    assert "./dev push-image-source" in mail["Message"]
    assert stack.record(run["run_id"])["status"] == "FAILED"


def test_given_the_same_dataset_twice_then_the_second_is_answered_with_the_first(stack: Stack) -> None:
    first, second = planned(stack), planned(stack, "cats-ba9876543210")
    claimed = claim_identity.handler({"run": first, "image": IMAGE}, stack.context)
    assert claimed["status"] == "claimed"
    assert claim_identity.handler({"run": first, "image": IMAGE}, stack.context)["status"] == "claimed"

    answer = claim_identity.handler({"run": second, "image": IMAGE}, stack.context)

    assert answer == {"status": "repeated", "repeats": first["run_id"], "repeats_status": "STARTING"}
    notify.handler({"run": second, "kind": "repeated", "facts": answer}, stack.context)
    (mail,) = stack.mails()
    assert first["run_id"] in mail["Message"]
    assert stack.record(second["run_id"])["repeats"] == first["run_id"]


@pytest.mark.parametrize(
    ("final", "manifest", "expected"),
    [
        ("FAILED", b'{"version": 1}', "claimed"),
        ("STOPPED", b'{"version": 1}', "claimed"),
        ("COMPLETED", b'{"version": 1}', "repeated"),
        ("COMPLETED", b'{"version": 1, "force": true}', "claimed"),
    ],
)
def test_given_the_first_run_is_over_then_only_a_model_is_not_made_again(
    stack: Stack, final: str, manifest: bytes, expected: str
) -> None:
    first, second = planned(stack), planned(stack, "cats-ba9876543210", manifest)
    claim_identity.handler({"run": first, "image": IMAGE}, stack.context)
    records = deployment.deployment(None).records
    records.advance(first["run_id"], "TRAINING")
    assert records.advance(first["run_id"], final).outcome == "changed"

    assert claim_identity.handler({"run": second, "image": IMAGE}, stack.context)["status"] == expected
