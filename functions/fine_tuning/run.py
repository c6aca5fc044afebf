"""One run.

Its name, and where in the bucket everything of it lies (docs/contracts.md, "S3 layout of a run").
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

MANIFEST_NAME = "manifest.json"
TOML_NAME = "kohya-sdxl-config.toml"
# What this application and its pipelines write, and where base models lie: a manifest there starts nothing.
RESERVED_PREFIXES = ("runs/", "checkpoints/", "models/", "model-outputs/")
_LONGEST_SLUG = 40


@dataclass(frozen=True)
class Run:
    """What the state machine hands to every Lambda as `run`.

    Attributes:
        dataset_prefix: the manifest's folder with a trailing slash; empty when it lies at the bucket's root.
        manifest_version: S3 version id, `null` where the bucket keeps no versions.
        retries: the first run of this very drop, whose checkpoints are continued; None for that one itself.
    """

    run_id: str
    bucket: str
    dataset_prefix: str
    manifest_key: str
    manifest_version: str
    retries: str | None = None

    @classmethod
    def of_manifest(cls, bucket: str, key: str, version: str) -> Run:
        prefix = key[: -len(MANIFEST_NAME)]
        return cls(run_id_of(bucket, key, version), bucket, prefix, key, version)

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Run:
        """Of an execution's input, or of a run's record, whose further attributes are ignored."""
        names = ("run_id", "bucket", "dataset_prefix", "manifest_key", "manifest_version")
        return cls(**{name: payload[name] for name in names}, retries=payload.get("retries"))

    def as_payload(self) -> dict[str, str]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def retry(self, number: int) -> Run:
        """The same drop once more, as the run `<first run>-r<number>`; the first retry has the number 2."""
        first = self.first_run_id
        return replace(self, run_id=f"{first}-r{number}", retries=first)

    @property
    def first_run_id(self) -> str:
        """Of this very drop: whose checkpoints are continued."""
        return self.retries or self.run_id

    @property
    def dataset(self) -> str:
        """The dataset's name as its user knows it."""
        return self.dataset_prefix.rstrip("/").rpartition("/")[2] or self.bucket

    @property
    def prefix(self) -> str:
        return f"runs/{self.run_id}/"

    @property
    def checkpoint_prefix(self) -> str:
        """Where trainer states lie; every rung and every retry finds those of the runs before it there."""
        return checkpoints_of(self.first_run_id)

    @property
    def report_key(self) -> str:
        return f"{self.prefix}report.json"

    def shard_key(self, number: int) -> str:
        return f"{self.prefix}inspection/shard-{number:04d}.json"

    @property
    def config_key(self) -> str:
        return f"{self.prefix}input/config.toml"

    @property
    def plan_key(self) -> str:
        return f"{self.prefix}input/plan.json"

    @property
    def inventory_key(self) -> str:
        return f"{self.prefix}input/inventory.jsonl"

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"


def run_id_of(bucket: str, key: str, version: str) -> str:
    """The same for a repeated event, another one for another upload of the same manifest.

    At most 53 characters.
    """
    folder = key[: -len(MANIFEST_NAME)].rstrip("/").rpartition("/")[2]
    slug = re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")[:_LONGEST_SLUG].rstrip("-") or "dataset"
    digest = hashlib.sha256(f"{bucket}/{key}/{version}".encode()).hexdigest()[:12]
    return f"{slug}-{digest}"


def checkpoints_of(first_run_id: str) -> str:
    """The prefix of a run's trainer states and latents; a retry has its first run's."""
    return f"checkpoints/{first_run_id}/"


def result_key_of(shard_key: str) -> str:
    """`…/inspection/shard-0003.json` → `…/inspection/result-0003.json`."""
    folder, _, name = shard_key.rpartition("/")
    return f"{folder}/{name.replace('shard-', 'result-', 1)}"
