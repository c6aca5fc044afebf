"""Reads again what an earlier step accepted."""

from __future__ import annotations

from fine_tuning import strict_json
from fine_tuning.aws.objects import Objects
from fine_tuning.manifest import Manifest
from fine_tuning.run import Run


def read_manifest(run: Run, objects: Objects) -> Manifest:
    """The manifest of a run that was received, in the version that it was received in."""
    return Manifest.from_document(strict_json.parse(objects.read(run.manifest_key, run.manifest_version)))
