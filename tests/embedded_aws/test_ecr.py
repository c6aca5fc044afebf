"""ECR answers about images as its API reference says."""

import hashlib
import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.embedded_aws.ecr_lifecycle import SECONDS_OF_A_DAY, Image, LifecycleError, expired, read_policy
from tests.contract.definitions import template
from tests.embedded_aws.running import RunningEmbeddedAws
from tests.embedded_aws.test_cloudformation import deploy

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def test_describing_an_image_that_is_missing_is_an_error(aws: RunningEmbeddedAws, unique: str) -> None:
    ecr = aws.client("ecr")
    ecr.create_repository(repositoryName=unique)
    with pytest.raises(ClientError) as raised:
        ecr.describe_images(repositoryName=unique, imageIds=[{"imageTag": "latest"}])
    assert raised.value.response["Error"]["Code"] == "ImageNotFoundException"
    assert ecr.describe_images(repositoryName=unique)["imageDetails"] == []


def test_the_size_of_an_image_is_that_of_its_configuration_and_layers(
    aws: RunningEmbeddedAws, unique: str
) -> None:
    ecr = aws.client("ecr")
    ecr.create_repository(repositoryName=unique)
    configuration, *layers = (upload(ecr, unique, content) for content in (b"{}", b"x" * 5000, b"y" * 70))
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", **configuration},
        "layers": [
            {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", **layer} for layer in layers
        ],
    }
    ecr.put_image(repositoryName=unique, imageManifest=json.dumps(manifest), imageTag="v1")
    [image] = ecr.describe_images(repositoryName=unique, imageIds=[{"imageTag": "v1"}])["imageDetails"]
    assert image["imageSizeInBytes"] == 2 + 5000 + 70
    assert image["imageTags"] == ["v1"]


def test_a_scan_is_asked_for_by_itself(aws: RunningEmbeddedAws, unique: str) -> None:
    ecr = aws.client("ecr")
    manifest = json.dumps({"schemaVersion": 2, "config": upload_new(ecr, f"{unique}-a", True), "layers": []})
    ecr.put_image(repositoryName=f"{unique}-a", imageManifest=manifest, imageTag="v1")
    manifest = json.dumps({"schemaVersion": 2, "config": upload_new(ecr, f"{unique}-b", False), "layers": []})
    ecr.put_image(repositoryName=f"{unique}-b", imageManifest=manifest, imageTag="v1")

    scan = ecr.describe_image_scan_findings(repositoryName=f"{unique}-a", imageId={"imageTag": "v1"})
    assert scan["imageScanStatus"]["status"] == "UNSUPPORTED_IMAGE"
    for repository, tag, code in (
        (f"{unique}-b", "v1", "ScanNotFoundException"),
        (f"{unique}-a", "v2", "ImageNotFoundException"),
    ):
        with pytest.raises(ClientError) as raised:
            ecr.describe_image_scan_findings(repositoryName=repository, imageId={"imageTag": tag})
        assert raised.value.response["Error"]["Code"] == code


# The template's own repository


def deployed(aws: RunningEmbeddedAws, name: str) -> Any:
    """A client of ECR, once the stack of the template's repository is there under the name."""
    properties = {**template()["Resources"]["ImageRepository"]["Properties"], "RepositoryName": name}
    resource = {"Type": "AWS::ECR::Repository", "Properties": properties}
    assert deploy(aws, name, {"Resources": {"Images": resource}}) == "CREATE_COMPLETE"
    return aws.client("ecr")


def image(ecr: Any, repository: str, content: str) -> str:
    """The manifest of an image without layers whose configuration is uploaded."""
    configuration = upload(ecr, repository, content.encode())
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": configuration, "layers": []})


def push_by_docker(aws: RunningEmbeddedAws, repository: str, tag: str, manifest: str) -> int:
    """The registry's answer to the last request of `docker push`."""
    request = urllib.request.Request(
        f"{aws.endpoint}/v2/{repository}/manifests/{tag}",
        manifest.encode(),
        {"Content-Type": MANIFEST},
        method="PUT",
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_tag_of_a_commit_never_moves_and_latest_does(aws: RunningEmbeddedAws, unique: str) -> None:
    ecr = deployed(aws, unique)
    one, two = image(ecr, unique, "one"), image(ecr, unique, "two")

    for tag in ("c0ffee-v25.2.2", "latest"):
        assert push_by_docker(aws, unique, tag, one) == 201
    assert push_by_docker(aws, unique, "c0ffee-v25.2.2", one) == 201  # the same once more is no move
    assert push_by_docker(aws, unique, "c0ffee-v25.2.2", two) == 400
    with pytest.raises(ClientError) as refused:
        ecr.put_image(repositoryName=unique, imageManifest=two, imageTag="c0ffee-v25.2.2")
    assert refused.value.response["Error"]["Code"] == "ImageTagAlreadyExistsException"
    assert push_by_docker(aws, unique, "latest", two) == 201
    ecr.put_image(repositoryName=unique, imageManifest=one, imageTag="latest")

    described = ecr.describe_images(repositoryName=unique)["imageDetails"]
    assert sorted(tag for each in described for tag in each.get("imageTags", [])) == [
        "c0ffee-v25.2.2",
        "latest",
    ]
    [latest] = ecr.describe_images(repositoryName=unique, imageIds=[{"imageTag": "latest"}])["imageDetails"]
    assert set(latest["imageTags"]) == {"c0ffee-v25.2.2", "latest"}


def test_the_newest_20_images_stay(aws: RunningEmbeddedAws, unique: str) -> None:
    ecr = deployed(aws, unique)
    ecr.put_image(repositoryName=unique, imageManifest=image(ecr, unique, "untagged"))
    for number in range(23):
        manifest = image(ecr, unique, f"image {number}")
        push_by_docker(aws, unique, f"{number}-v25.2.2", manifest)
        ecr.put_image(repositoryName=unique, imageManifest=manifest, imageTag="latest")

    images = ecr.describe_images(repositoryName=unique)["imageDetails"]
    tags = {tag for each in images for tag in each.get("imageTags", [])}
    assert tags == {*(f"{number}-v25.2.2" for number in range(3, 23)), "latest"}
    assert len(images) == 21  # and the untagged one, which has its week


DAY = SECONDS_OF_A_DAY
NOW = 100.0 * DAY


def of_template() -> list[dict[str, Any]]:
    policy = template()["Resources"]["ImageRepository"]["Properties"]["LifecyclePolicy"]
    return read_policy(policy["LifecyclePolicyText"])


def test_the_templates_policy_expires_what_is_beyond_20_and_what_is_untagged_for_a_week() -> None:
    tagged = [
        Image(f"tagged-{number}", [f"{number}-v25.2.2"], NOW - 50 * DAY + number) for number in range(25)
    ]
    untagged = [Image("old", [], NOW - 7.1 * DAY), Image("recent", [], NOW - 6.9 * DAY)]

    gone = expired(of_template(), [*tagged, *untagged], NOW)

    assert gone == {"old", *(f"tagged-{number}" for number in range(5))}


def test_a_new_tag_makes_no_image_younger() -> None:
    """As ECR has it: `latest` on the oldest of 21 images does not keep it. The next run that needs it builds it."""
    images = [Image(f"{number}", [f"{number}-v25.2.2"], NOW + number) for number in range(21)]
    images[0] = Image("0", ["0-v25.2.2", "latest"], NOW)

    assert expired(of_template(), images, NOW) == {"0"}


def rule(priority: int, **selection: Any) -> dict[str, Any]:
    return {"rulePriority": priority, "selection": selection, "action": {"type": "expire"}}


def test_what_a_rule_selects_no_later_rule_expires() -> None:
    keeps = rule(
        1, tagStatus="tagged", tagPatternList=["prod*"], countType="imageCountMoreThan", countNumber=9
    )
    rest = rule(2, tagStatus="any", countType="imageCountMoreThan", countNumber=1)
    images = [Image("a", ["prod-1"], 1.0), Image("b", ["test"], 2.0), Image("c", [], 3.0)]

    assert expired(read_policy(json.dumps({"rules": [rest, keeps]})), images, NOW) == {"b"}


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (
            [rule(1, tagStatus="tagged", countType="imageCountMoreThan", countNumber=9)],
            "is not emulated, or is none",
        ),
        (
            [rule(1, tagStatus="untagged", countType="sinceImagePushed", countNumber=9)],
            "is not emulated, or is none",
        ),
        ([rule(1, tagStatus="some", countType="imageCountMoreThan", countNumber=9)], "tagStatus some"),
        ([rule(1, tagStatus="any", countType="imageCountMoreThan", countNumber=0)], "at least 1"),
        ([rule(1, tagStatus="any", countType="imageCountMoreThan", countNumber=9)] * 2, "same rulePriority"),
    ],
)
def test_a_policy_that_ecr_refuses_is_refused(rules: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(LifecycleError, match=says):
        read_policy(json.dumps({"rules": rules}))


def upload_new(ecr: Any, repository: str, scanned: bool) -> dict[str, Any]:
    ecr.create_repository(repositoryName=repository, imageScanningConfiguration={"scanOnPush": scanned})
    return upload(ecr, repository, b"{}")


def upload(ecr: Any, repository: str, content: bytes) -> dict[str, Any]:
    """Digest and size of a layer that has been uploaded."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    started = ecr.initiate_layer_upload(repositoryName=repository)["uploadId"]
    part = {"partFirstByte": 0, "partLastByte": len(content) - 1, "layerPartBlob": content}
    ecr.upload_layer_part(repositoryName=repository, uploadId=started, **part)
    ecr.complete_layer_upload(repositoryName=repository, uploadId=started, layerDigests=[digest])
    return {"digest": digest, "size": len(content)}
