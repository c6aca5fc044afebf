"""ECR: an image that is missing is an error, the size of an image is that of its layers, and a scan is asked for by
itself."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from ministack.services import ecr

from local.embedded_aws.patching import replace
from local.embedded_aws.registration import Response, add_operation, error_response, json_response


def install() -> None:
    known = replace(ecr, "_describe_images", lambda request: describe_images(known, request))
    add_operation("ecr", "DescribeImageScanFindings", describe_image_scan_findings)


def describe_image_scan_findings(request: Mapping[str, Any]) -> Response:
    """There is no scanner here: what ECR says of an image that its own cannot read."""
    repository, identity = request["repositoryName"], request["imageId"]
    image = ecr._find_image(repository, identity) if repository in ecr._repositories else None
    if image is None:
        return error_response(
            "ImageNotFoundException",
            f"The image with imageId {identity} does not exist in the repository '{repository}'",
        )
    if not ecr._repositories[repository].get("imageScanningConfiguration", {}).get("scanOnPush"):
        return error_response(
            "ScanNotFoundException", f"Image scan does not exist for the image with {identity}"
        )
    return json_response(
        {
            "repositoryName": repository,
            "imageId": {"imageDigest": image["imageDigest"]},
            "imageScanStatus": {"status": "UNSUPPORTED_IMAGE", "description": "There is no scanner here"},
        }
    )


def describe_images(known: Callable[[Mapping[str, Any]], Response], request: Mapping[str, Any]) -> Response:
    repository = request.get("repositoryName", "")
    if repository in ecr._repositories:
        for identity in request.get("imageIds") or []:
            if ecr._find_image(repository, identity) is None:
                return error_response(
                    "ImageNotFoundException",
                    f"The image with imageId {identity} does not exist in the repository '{repository}'",
                )
    status, headers, body = known(request)
    if status != 200:
        return status, headers, body
    described = json.loads(body)
    for detail in described["imageDetails"]:
        image = ecr._find_image(repository, {"imageDigest": detail["imageDigest"]})
        detail["imageSizeInBytes"] = size_in_bytes(json.loads(image.get("imageManifest") or "{}"))
    return json_response(described)


def size_in_bytes(manifest: Mapping[str, Any]) -> int:
    """Compressed layers and configuration, as ECR reports it."""
    blobs = [manifest.get("config", {}), *manifest.get("layers", [])]
    return sum(int(blob.get("size", 0)) for blob in blobs)
