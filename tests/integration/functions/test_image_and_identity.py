"""The training image, and whether the same dataset was trained already."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import claim_identity
import notify
import pytest
import resolve_image
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from fine_tuning.aws import deployment, sdk
from fine_tuning.errors import AwsRequestError, BuildQuotaError
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


def push_image(*tags: str) -> str:
    """The digest of one image with those tags."""
    ecr = boto3.client("ecr", region_name=REGION)
    manifest = json.dumps({"schemaVersion": 2, "config": {"digest": "sha256:1"}, "layers": []})
    digest = ""
    for tag in tags:
        put = ecr.put_image(
            repositoryName="kohya-ss-fine-tuning",
            imageManifest=manifest,
            imageManifestMediaType="application/vnd.docker.distribution.manifest.v2+json",
            imageTag=tag,
        )
        digest = put["image"]["imageId"]["imageDigest"]
    return digest


def builds() -> list[str]:
    listed = sdk.client("codebuild").list_builds_for_project(projectName=ENVIRONMENT["BUILD_PROJECT_NAME"])
    return list(listed["ids"])


def test_given_an_image_of_the_wanted_kohya_then_it_is_resolved_to_its_digest(stack: Stack) -> None:
    run = planned(stack)
    make_repositories(with_source=True)
    digest = push_image("c0ffee-v25.2.2", "latest")

    answer = resolve_image.handler({"run": run}, stack.context)

    assert answer["status"] == "ready"
    assert answer["image"].endswith(f"/kohya-ss-fine-tuning@{digest}")
    assert builds() == []
    assert stack.record(run["run_id"])["status"] == "PLANNED"


def test_given_an_image_of_another_kohya_then_the_wanted_one_is_built_once(stack: Stack) -> None:
    run = planned(stack)
    make_repositories(with_source=True)
    push_image("c0ffee-v22.6.2", "latest")
    request: dict[str, str] = {}
    sdk.client("codebuild").meta.events.register(
        "before-call.codebuild.StartBuild", lambda params, **_: request.update(body=params["body"].decode())
    )

    answer = resolve_image.handler({"run": run}, stack.context)

    assert (answer["status"], answer["image"]) == ("building", None)
    assert builds() == [answer["build_id"]]
    (mail,) = stack.mails()
    assert mail["Subject"] == "Waiting: cats for the training image"
    assert answer["build_id"] in mail["Message"]
    version = json.loads(request["body"])["environmentVariablesOverride"]
    assert version == [{"name": "KOHYA_SS_VERSION", "value": "v25.2.2"}]


def test_given_a_failed_build_of_another_kohya_then_the_wanted_one_is_built(stack: Stack) -> None:
    run = planned(stack)
    make_repositories(with_source=True)
    with Stubber(sdk.client("codebuild")) as codebuild:
        codebuild.add_response("list_builds_for_project", {"ids": ["p:1"]})
        failed = build("p:1", "FAILED", "v22.6.2")
        codebuild.add_response("batch_get_builds", {"builds": [failed]})
        codebuild.add_response("start_build", {"build": {"id": "p:2"}})
        answer = resolve_image.handler({"run": run}, stack.context)
        codebuild.assert_no_pending_responses()
    assert (answer["status"], answer["build_id"]) == ("building", "p:2")


def test_given_a_failed_build_of_the_wanted_kohya_then_it_is_told(stack: Stack) -> None:
    run = planned(stack)
    make_repositories(with_source=True)
    push_image("c0ffee-v22.6.2", "latest")
    with Stubber(sdk.client("codebuild")) as codebuild:
        codebuild.add_response("list_builds_for_project", {"ids": ["p:1"]})
        codebuild.add_response("batch_get_builds", {"builds": [build("p:1", "FAILED", "v25.2.2")]})
        assert resolve_image.handler({"run": run}, stack.context)["status"] == "failed"


def build(build_id: str, status: str, kohya_version: str) -> dict[str, Any]:
    """As BatchGetBuilds has it."""
    variables = [{"name": "KOHYA_SS_VERSION", "value": kohya_version}]
    return {
        "id": build_id,
        "buildStatus": status,
        "resolvedSourceVersion": "c0ffee",
        "environment": {
            "type": "LINUX_CONTAINER",
            "image": "i",
            "computeType": "BUILD_GENERAL1_LARGE",
            "environmentVariables": variables,
        },
    }


def test_given_source_and_no_image_then_one_build_is_started_and_awaited(stack: Stack) -> None:
    run = planned(stack)
    make_repositories(with_source=True)

    answer = resolve_image.handler({"run": run}, stack.context)

    assert answer["status"] == "building"
    assert builds() == [answer["build_id"]]
    assert answer["wait_seconds"] > 0
    assert stack.record(run["run_id"])["status"] == "WAITING_FOR_IMAGE"


REFUSED = "Cannot have more than {} builds in queue for the account"


def refusing(monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    """CodeBuild starts nothing."""

    def start_build(**_: Any) -> None:
        answer: Any = {"Error": {"Code": "AccountLimitExceededException", "Message": REFUSED.format(allowed)}}
        raise ClientError(answer, "StartBuild")

    monkeypatch.setattr(sdk.client("codebuild"), "start_build", start_build)


def any_look_at_the_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    tip = {"branch": {"branchName": "main", "commitId": "c0ffee"}}
    monkeypatch.setattr(sdk.client("codecommit"), "get_branch", lambda **_: tip)


def test_given_other_builds_use_the_quota_then_they_are_waited_for_like_a_build_but_not_for_ever(
    stack: Stack, at: Callable[[datetime], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, begin = planned(stack), datetime.now(UTC)
    make_repositories(with_source=True)
    any_look_at_the_branch(monkeypatch)
    with monkeypatch.context() as meanwhile:
        refusing(meanwhile, allowed=1)
        for minutes in (0, 5, 170):
            at(begin + timedelta(minutes=minutes))
            answer = resolve_image.handler({"run": run}, stack.context)
            assert (answer["status"], answer["build_id"]) == ("building", None)
            assert answer["wait_seconds"] >= 15
        (mail,) = stack.mails()
        assert mail["Subject"] == "Waiting: cats for other builds"
        assert "Concurrently running builds for Linux/Large environment" in mail["Message"]
        assert stack.record(run["run_id"])["status"] == "WAITING_FOR_IMAGE"
        at(begin + timedelta(minutes=181))
        with pytest.raises(BuildQuotaError, match="Cannot have more than 1 builds in queue"):
            resolve_image.handler({"run": run}, stack.context)
    # When one of them has ended, then the image's is started
    answer = resolve_image.handler({"run": run}, stack.context)
    assert builds() == [answer["build_id"]]


def test_given_a_quota_of_no_build_then_nothing_is_waited_for(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planned(stack)
    make_repositories(with_source=True)
    refusing(monkeypatch, allowed=0)
    with pytest.raises(AwsRequestError, match="What to do: Raise the quota 'Concurrently running builds"):
        resolve_image.handler({"run": run}, stack.context)


def test_the_longer_a_build_is_waited_for_the_rarer_it_is_looked_at(
    stack: Stack, at: Callable[[datetime], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, begin = planned(stack), datetime.now(UTC)
    make_repositories(with_source=True)
    any_look_at_the_branch(monkeypatch)
    waits = []
    for minutes in (0, 5, 31, 181):
        at(begin + timedelta(minutes=minutes))
        waits.append(resolve_image.handler({"run": run}, stack.context)["wait_seconds"])
    assert waits[:2] == [15, 15]
    assert 60 <= waits[2] <= 62
    assert 360 <= waits[3] <= 362


def test_given_no_source_then_the_mail_names_the_command_and_a_later_drop_may_run(stack: Stack) -> None:
    run = planned(stack)
    make_repositories(with_source=False)

    answer = resolve_image.handler({"run": run}, stack.context)
    assert answer["status"] == "no_source"
    notify.handler({"run": run, "kind": "image-missing", "facts": {}}, stack.context)

    (mail,) = stack.mails()
    assert "./dev push-image-source" in mail["Message"]
    assert stack.record(run["run_id"])["status"] == "FAILED"


def test_given_the_same_dataset_twice_then_the_second_is_answered_with_the_first(stack: Stack) -> None:
    first, second = planned(stack), planned(stack, "cats-ba9876543210")
    claimed = claim_identity.handler({"run": first, "image": IMAGE}, stack.context)
    assert claimed["status"] == "claimed"
    assert claim_identity.handler({"run": first, "image": IMAGE}, stack.context)["status"] == "claimed"

    answer = claim_identity.handler({"run": second, "image": IMAGE}, stack.context)

    assert answer == {"status": "repeated", "repeats": first["run_id"], "repeats_status": "PLANNED"}
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
