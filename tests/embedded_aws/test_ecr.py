"""ECR answers about images as its API reference says."""

import hashlib
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.embedded_aws.running import RunningEmbeddedAws


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
