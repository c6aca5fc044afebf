"""What the sources of a configuration come to, without a dataset."""

from __future__ import annotations

from typing import Any

from fine_tuning import configuration
from fine_tuning.configuration import Configuration
from fine_tuning.manifest import Manifest


def resolve(config: dict[str, Any] | None = None, toml: str | None = None, **keys: Any) -> Configuration:
    """`config` and `keys` are the manifest's."""
    version = keys.pop("kohya_version", "v25.2.2")
    manifest = Manifest.from_document({"version": 1, "config": config or {}, **keys})
    return configuration.resolve(manifest, toml.encode() if toml is not None else None, version)


def told(resolved: Configuration) -> list[tuple[str, str, str]]:
    """Severity, code and path of each finding."""
    return [(finding.severity, finding.code, finding.path) for finding in resolved.findings]
