"""Container images as registries hold them: Docker schema 2 manifest, configuration, gzipped tar layers.
Pure bytes."""

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIGURATION_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"

_REFERENCE = re.compile(
    r"(?P<registry>(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com)/"
    r"(?P<repository>[a-z0-9][a-z0-9._/-]*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class Reference:
    """An image in ECR; without a digest `tag` names it."""

    registry: str
    region: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def image_id(self) -> dict[str, str]:
        """As ECR's imageIds take it; a digest weighs more than a tag."""
        return {"imageDigest": self.digest} if self.digest else {"imageTag": self.tag or "latest"}


def parse_reference(text: str) -> Reference | None:
    """None unless `text` names an image in an ECR registry."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        return None
    return Reference(match["registry"], match["region"], match["repository"], match["tag"], match["digest"])


@dataclass(frozen=True)
class LayerFile:
    """One file of a layer. `path` is absolute without the leading slash."""

    path: str
    content: bytes
    executable: bool


@dataclass(frozen=True)
class Image:
    """`configuration` and `manifest` are the exact bytes that their digests are taken of; `layers` in order."""

    manifest: bytes
    configuration: bytes
    layers: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def layer_of(files: Iterable[LayerFile]) -> bytes:
    """A gzipped tar. The same files give the same bytes: no times, no owners, sorted by path."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in sorted(files, key=lambda item: item.path):
            entry = tarfile.TarInfo(file.path)
            entry.size, entry.mode, entry.mtime = len(file.content), 0o755 if file.executable else 0o644, 0
            tar.addfile(entry, io.BytesIO(file.content))
    return gzip.compress(raw.getvalue(), compresslevel=6, mtime=0)


def assemble(configuration: Mapping[str, Any], layers: Iterable[bytes]) -> Image:
    """An image of `layers`; `configuration` is the Docker `config` object (Env, Cmd, Entrypoint, Labels,
    WorkingDir)."""
    layers = tuple(layers)
    body = {
        "architecture": "amd64",
        "config": dict(configuration),
        "created": "1970-01-01T00:00:00Z",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(gzip.decompress(layer)) for layer in layers]},
    }
    configuration_bytes = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor(CONFIGURATION_TYPE, configuration_bytes),
        "layers": [_descriptor(LAYER_TYPE, layer) for layer in layers],
    }
    return Image(json.dumps(manifest, indent=3).encode(), configuration_bytes, layers)


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(content), "digest": digest_of(content)}
