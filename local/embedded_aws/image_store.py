"""Images in and out of ECR over its API, with the caller's own credentials, so that roles are enforced."""

import io
import json
import shutil
import tarfile
import tempfile
import threading
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from local.embedded_aws.image_format import MANIFEST_TYPE, Image, Reference, digest_of

PART_BYTES = 10 * 1024 * 1024
_extracting = threading.Lock()


def filter_of(module: object) -> dict[str, Any]:
    """The argument that asks `tarfile` for its filter: since 3.11.4 there is one, and from 3.14 on it would take a
    stricter one by itself."""
    return {"filter": "tar"} if hasattr(module, "tar_filter") else {}


_FILTER = filter_of(tarfile)


class ImageNotFoundError(Exception):
    """The repository or the image does not exist."""


@dataclass(frozen=True)
class ExtractedImage:
    """`root` is the image's file system, `configuration` its Docker `config` object."""

    digest: str
    root: Path
    configuration: Mapping[str, Any]


def push(ecr: Any, reference: Reference, image: Image) -> str:
    """Upload what ECR lacks of the image and tag it; the digest as ECR reports it."""
    blobs = {digest_of(blob): blob for blob in (image.configuration, *image.layers)}
    state = ecr.batch_check_layer_availability(repositoryName=reference.repository, layerDigests=list(blobs))
    available = {
        layer["layerDigest"] for layer in state["layers"] if layer["layerAvailability"] == "AVAILABLE"
    }
    for digest, blob in blobs.items():
        if digest not in available:
            _upload(ecr, reference.repository, digest, blob)
    tag = {"imageTag": reference.tag} if reference.tag else {}
    try:
        answer = ecr.put_image(
            repositoryName=reference.repository,
            imageManifest=image.manifest.decode(),
            imageManifestMediaType=MANIFEST_TYPE,
            **tag,
        )
    except ClientError as error:
        # A registry takes the push of what it has already; ECR's API calls it an error.
        if error.response["Error"]["Code"] != "ImageAlreadyExistsException":
            raise
        return image.digest
    return str(answer["image"]["imageId"]["imageDigest"])


def _upload(ecr: Any, repository: str, digest: str, blob: bytes) -> None:
    upload = ecr.initiate_layer_upload(repositoryName=repository)["uploadId"]
    for first in range(0, len(blob), PART_BYTES):
        part = blob[first : first + PART_BYTES]
        ecr.upload_layer_part(
            repositoryName=repository,
            uploadId=upload,
            partFirstByte=first,
            partLastByte=first + len(part) - 1,
            layerPartBlob=part,
        )
    ecr.complete_layer_upload(repositoryName=repository, uploadId=upload, layerDigests=[digest])


def fetch(ecr: Any, reference: Reference, endpoint: str) -> Image:
    """The image, each part checked against its digest. Raises ImageNotFoundError, or the API's ClientError."""
    try:
        answer = ecr.batch_get_image(repositoryName=reference.repository, imageIds=[reference.image_id])
    except ClientError as error:
        if error.response["Error"]["Code"] == "RepositoryNotFoundException":
            raise ImageNotFoundError(f"repository {reference.repository} does not exist") from error
        raise
    if not answer["images"]:
        name = next(iter(reference.image_id.values()))
        raise ImageNotFoundError(f"{reference.repository} has no image {name}")
    manifest = answer["images"][0]["imageManifest"].encode()
    described = json.loads(manifest)
    blobs = [
        _download(ecr, reference, part["digest"], endpoint)
        for part in (described["config"], *described["layers"])
    ]
    return Image(manifest, blobs[0], tuple(blobs[1:]))


def _download(ecr: Any, reference: Reference, digest: str, endpoint: str) -> bytes:
    url = ecr.get_download_url_for_layer(repositoryName=reference.repository, layerDigest=digest)[
        "downloadUrl"
    ]
    parts = urllib.parse.urlsplit(url)
    # The address names AWS's host; the embedded registry answers for it on the loopback interface.
    request = urllib.request.Request(endpoint + parts.path, headers={"Host": parts.netloc})
    with urllib.request.urlopen(request, timeout=60) as response:
        content: bytes = response.read()
    if digest_of(content) != digest:
        raise ImageNotFoundError(f"layer {digest} of {reference.repository} is damaged")
    return content


def extract(ecr: Any, reference: Reference, endpoint: str, folder: Path) -> ExtractedImage:
    """Pull the image into `folder/<digest>/` unless it is there; the registry is asked in any case, as
    Docker does."""
    image = fetch(ecr, reference, endpoint)
    home = folder / image.digest.removeprefix("sha256:")
    with _extracting:
        if not home.exists():
            folder.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(dir=folder, prefix=".part-"))
            try:
                for layer in image.layers:
                    _extract_layer(layer, part)
                part.rename(home)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
    return ExtractedImage(image.digest, home, json.loads(image.configuration).get("config") or {})


def _extract_layer(layer: bytes, root: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(layer), mode="r:gz") as tar:
        for entry in tar:
            _stay_inside(entry, root)
            path = root / entry.name
            if path.name.startswith(".wh."):  # a later layer removed it
                gone = path.with_name(path.name.removeprefix(".wh."))
                shutil.rmtree(gone) if gone.is_dir() else gone.unlink(missing_ok=True)
                continue
            tar.extract(entry, root, **_FILTER)


def _stay_inside(entry: tarfile.TarInfo, root: Path) -> None:
    """What Python's own filter `tar` does, for the Pythons that lack it: no leading slash, nobody else may write,
    and nothing outside `root`, be it by name, through a link on the way, or by hard link."""
    entry.name = entry.name.lstrip("/")
    entry.mode &= 0o755
    names = [entry.name, entry.linkname] if entry.islnk() else [entry.name]
    for name in names:
        if not (root / name).resolve().is_relative_to(root.resolve()):
            raise ImageNotFoundError(f"a layer is damaged: {name} lies outside the image")
