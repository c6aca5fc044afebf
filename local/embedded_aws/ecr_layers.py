"""What is pushed to ECR: ministack's layer API keeps no byte, takes images whose layers it never saw, lets an immutable
tag with exclusions move, and keeps what a life-cycle policy expires."""

import base64
import fnmatch
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from ministack.core.responses import new_uuid
from ministack.services import ecr
from ministack.services.cloudformation import provisioners

from local.embedded_aws.ecr_lifecycle import Image, LifecycleError, expired, read_policy
from local.embedded_aws.patching import replace
from local.embedded_aws.registration import Response, error_response, json_response

Request = Mapping[str, Any]
KnownOperation = Callable[[Request], Response]
FILTERS = "imageTagMutabilityExclusionFilters"


def install() -> None:
    for name, new in (
        ("_initiate_layer_upload", initiate_layer_upload),
        ("_upload_layer_part", upload_layer_part),
        ("_complete_layer_upload", complete_layer_upload),
        ("_batch_check_layer_availability", batch_check_layer_availability),
    ):
        replace(ecr, name, new)
    original: KnownOperation = replace(ecr, "_put_image", lambda request: put_image(request, original))
    push: Callable[..., Response] = replace(
        ecr,
        "_v2_put_manifest",
        lambda name, reference, headers, body: push_manifest(name, reference, headers, body, push),
    )
    keep: KnownOperation = replace(
        ecr, "_put_lifecycle_policy", lambda request: put_lifecycle_policy(request, keep)
    )
    known: KnownOperation = replace(
        ecr, "_create_repository", lambda request: create_repository(request, known)
    )
    handlers = provisioners._RESOURCE_HANDLERS["AWS::ECR::Repository"]
    create, update = handlers["create"], handlers["update"]
    handlers["create"] = lambda *given: with_exclusions(create(*given), given[1])
    handlers["update"] = lambda *given: with_exclusions(update(*given), given[2])


def create_repository(request: Request, original: KnownOperation) -> Response:
    response: Response = original(request)
    if response[0] == 200 and FILTERS in request:
        ecr._repositories[request["repositoryName"]][FILTERS] = request[FILTERS]
    return response


def with_exclusions(
    provisioned: tuple[str, dict[str, Any]], properties: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Keep the tags that an immutable repository lets move, which ministack forgets."""
    prefix = "ImageTagMutabilityExclusionFilter"
    ecr._repositories[provisioned[0]][FILTERS] = [
        {"filterType": item[f"{prefix}Type"], "filter": item[f"{prefix}Value"]}
        for item in properties.get(f"{prefix}s") or []
    ]
    return provisioned


def _missing_repository(request: Request) -> Response | None:
    name = request["repositoryName"]
    if name in ecr._repositories:
        return None
    return error_response("RepositoryNotFoundException", f"The repository with name '{name}' does not exist")


def initiate_layer_upload(request: Request) -> Response:
    if refused := _missing_repository(request):
        return refused
    upload = new_uuid()
    ecr._uploads.setdefault(request["repositoryName"], {})[upload] = bytearray()
    return json_response({"uploadId": upload, "partSize": ecr._UPLOAD_PART_SIZE})


def upload_layer_part(request: Request) -> Response:
    if refused := _missing_repository(request):
        return refused
    buffer = ecr._uploads.get(request["repositoryName"], {}).get(request["uploadId"])
    if buffer is None:
        return error_response("UploadNotFoundException", f"The upload {request['uploadId']} does not exist")
    if request["partFirstByte"] != len(buffer):
        return error_response("InvalidLayerPartException", f"The next byte expected is {len(buffer)}")
    buffer.extend(base64.b64decode(request["layerPartBlob"]))
    return json_response(
        {
            "registryId": ecr._registry_id(),
            "repositoryName": request["repositoryName"],
            "uploadId": request["uploadId"],
            "lastByteReceived": len(buffer) - 1,
        }
    )


def complete_layer_upload(request: Request) -> Response:
    if refused := _missing_repository(request):
        return refused
    name, upload = request["repositoryName"], request["uploadId"]
    content = bytes(ecr._uploads.get(name, {}).pop(upload, b""))
    digest = ecr._content_digest(content)
    if not content:
        return error_response("EmptyUploadException", f"The upload {upload} has no bytes")
    if digest not in request["layerDigests"]:
        return error_response("InvalidLayerException", f"The layer's digest is {digest}")
    ecr._layer_blobs.setdefault(name, {})[digest] = content
    return json_response(
        {"registryId": ecr._registry_id(), "repositoryName": name, "uploadId": upload, "layerDigest": digest}
    )


def batch_check_layer_availability(request: Request) -> Response:
    if refused := _missing_repository(request):
        return refused
    blobs = ecr._layer_blobs.get(request["repositoryName"], {})
    found = [digest for digest in request["layerDigests"] if digest in blobs]
    failures = [
        {
            "layerDigest": digest,
            "failureCode": "MissingLayerDigest",
            "failureReason": "The layer does not exist",
        }
        for digest in request["layerDigests"]
        if digest not in blobs
    ]
    layers = [
        {"layerDigest": digest, "layerAvailability": "AVAILABLE", "layerSize": len(blobs[digest])}
        for digest in found
    ]
    return json_response({"layers": layers, "failures": failures})


def put_image(request: Request, original: KnownOperation) -> Response:
    if refused := _missing_repository(request) or _refused_image(request):
        return refused
    response: Response = original(request)
    if response[0] == 200:
        manifest = request["imageManifest"].encode()
        ecr._manifest_blobs.setdefault(request["repositoryName"], {})[ecr._image_digest(manifest)] = manifest
        expire(request["repositoryName"])
    return response


def push_manifest(
    name: str, reference: str, headers: Mapping[str, str], body: bytes, original: Callable[..., Response]
) -> Response:
    """`docker push`, which comes by the registry's own protocol; `reference` is a tag or a digest."""
    holder = _holder(name, reference)
    moves = holder is not None and holder["imageDigest"] != ecr._content_digest(body)
    if moves and is_immutable(ecr._repositories[name], reference):
        refused: Response = ecr._registry_error(400, "TAG_INVALID", _immutable(name, reference), {})
        return refused
    response = original(name, reference, headers, body)
    if response[0] == 201:
        expire(name)
    return response


def put_lifecycle_policy(request: Request, original: KnownOperation) -> Response:
    try:
        read_policy(request["lifecyclePolicyText"])
    except LifecycleError as error:
        return error_response("InvalidParameterException", str(error))
    return original(request)


def expire(name: str) -> None:
    """What the repository's life-cycle policy expires by now is gone."""
    policy = ecr._lifecycle_policies.get(name)
    if policy is None:
        return
    images = [
        Image(image["imageDigest"], image.get("imageTags", []), image["imagePushedAt"])
        for image in ecr._images[name]
    ]
    for digest in expired(read_policy(policy), images, time.time()):
        ecr._images[name].remove(ecr._find_image(name, {"imageDigest": digest}))
        ecr._manifest_blobs.get(name, {}).pop(digest, None)


def _holder(name: str, tag: str | None) -> dict[str, Any] | None:
    """The image that has the tag."""
    images: list[dict[str, Any]] = ecr._images.get(name, [])
    return next((image for image in images if tag and tag in image.get("imageTags", [])), None)


def _refused_image(request: Request) -> Response | None:
    name, tag = request["repositoryName"], request.get("imageTag")
    try:
        manifest = json.loads(request["imageManifest"])
        digests = [part["digest"] for part in (manifest["config"], *manifest["layers"])]
    except (ValueError, KeyError, TypeError):
        return error_response("InvalidParameterException", "The image manifest cannot be read")
    missing = [digest for digest in digests if digest not in ecr._layer_blobs.get(name, {})]
    if missing:
        return error_response("LayersNotFoundException", f"Layers not found: {', '.join(missing)}")
    digest = ecr._image_digest(request["imageManifest"])
    holder = _holder(name, tag)
    if holder is None:
        return None
    if holder["imageDigest"] == digest:
        return error_response(
            "ImageAlreadyExistsException", f"Image with digest '{digest}' and tag '{tag}' already exists"
        )
    if tag is not None and is_immutable(ecr._repositories[name], tag):
        return error_response("ImageTagAlreadyExistsException", _immutable(name, tag))
    return None


def _immutable(name: str, tag: str) -> str:
    return f"The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten"


def is_immutable(repository: Mapping[str, Any], tag: str) -> bool:
    """Whether a tag may not move to another image; exclusion filters are wildcards."""
    mutability = str(repository.get("imageTagMutability", "MUTABLE"))
    filters = repository.get(FILTERS) or []
    excluded = any(fnmatch.fnmatchcase(tag, item["filter"]) for item in filters)
    return mutability.startswith("IMMUTABLE") != excluded
