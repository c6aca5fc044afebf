"""A whole dataset judged in this process: the functions' own steps over objects in memory instead of S3."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from fine_tuning import manifest
from fine_tuning.aws.objects import Objects
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.errors import ObjectMissingError
from fine_tuning.inventory import InventoryFile, ListedObject, UnfinishedUpload
from fine_tuning.report import rejection
from fine_tuning.settings import Settings
from fine_tuning.steps.inspecting import inspect_shard
from fine_tuning.steps.planning import plan_run
from fine_tuning.steps.taking_inventory import take_inventory
from tests.functions_data import BUCKET, RUN

NOW = datetime(2026, 9, 1, tzinfo=UTC)
SETTINGS = {
    "KOHYA_VERSION": "v25.2.2",
    "INSTANCE_TYPES": "ml.g5.8xlarge",
    "TRAINING_VOLUME_GB": "50",
    "MAX_TRAINING_RUNTIME_SECONDS": "86400",
    "SETTLE_SECONDS": "0",
    "UPLOAD_WAIT_SECONDS": "60",
    "SHARD_SIZE": "3",
}


@dataclass
class MemoryObjects(Objects):
    """A bucket in memory. `sizes` are what a listing says of objects that nobody wants to make so large."""

    contents: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    bucket: str = BUCKET

    def size(self, key: str, version: str | None = None) -> int:
        return self.sizes.get(key, len(self.read(key)))

    def read(self, key: str, version: str | None = None) -> bytes:
        try:
            return self.contents[key]
        except KeyError:
            raise ObjectMissingError(f"{key} is not there.", "Restore it.") from None

    def write(self, key: str, content: bytes, content_type: str = "application/octet-stream") -> None:
        self.contents[key] = content

    def list_dataset(self, prefix: str) -> list[ListedObject]:
        return [
            ListedObject(
                InventoryFile(
                    key.removeprefix(prefix), self.size(key), hashlib.md5(content).hexdigest(), "v"
                ),
                NOW - timedelta(hours=1),
            )
            for key, content in self.contents.items()
            if key.startswith(prefix)
        ]

    def unfinished_uploads(self, prefix: str) -> list[UnfinishedUpload]:
        return [UnfinishedUpload(path, NOW - timedelta(seconds=30)) for path in self.unfinished]


class NoRecords(RunRecords):
    """The run's record, of which no judgement depends."""

    def __init__(self) -> None: ...

    def advance(self, run_id: str, status: str, attributes: Mapping[str, Any] | None = None) -> None: ...

    def newest_completed(self) -> list[dict[str, Any]]:
        return []


def judged(
    files: Mapping[str, bytes],
    document: bytes | Mapping[str, Any],
    sizes: Mapping[str, int] | None = None,
    settings: Mapping[str, str] | None = None,
    elsewhere: Mapping[str, bytes] | None = None,
    unfinished: Sequence[str] = (),
) -> dict[str, Any]:
    """report.json of a dataset; see `judged_objects`."""
    return judged_objects(files, document, sizes, settings, elsewhere, unfinished)[0]


def judged_objects(
    files: Mapping[str, bytes],
    document: bytes | Mapping[str, Any],
    sizes: Mapping[str, int] | None = None,
    settings: Mapping[str, str] | None = None,
    elsewhere: Mapping[str, bytes] | None = None,
    unfinished: Sequence[str] = (),
) -> tuple[dict[str, Any], MemoryObjects]:
    """report.json of a dataset, and the bucket in which everything else stands that was written.

    Args:
        files: path → content, the user's TOML among them.
        document: manifest.json, as bytes or as keys beside `version`.
        sizes: path → bytes, where a listing is to tell another size than the content's.
        elsewhere: key → content, outside the dataset.
        unfinished: paths whose upload has begun and is not over.
    """
    content = document if isinstance(document, bytes) else json.dumps({"version": 1, **document}).encode()
    if oversize := manifest.too_large(len(content)):
        return rejection([oversize]), MemoryObjects()
    accepted, findings = manifest.judge(content)
    if accepted is None:
        return rejection(findings), MemoryObjects()
    prefix = RUN.dataset_prefix
    objects = MemoryObjects(
        {
            **(elsewhere or {}),
            RUN.manifest_key: content,
            **{prefix + path: data for path, data in files.items()},
        },
        {prefix + path: size for path, size in (sizes or {}).items()},
        list(unfinished),
    )
    using = Settings({**SETTINGS, **(settings or {})})
    answer = take_inventory(RUN, NOW - timedelta(hours=1), NOW, using, objects, NoRecords())
    if answer["status"] == "complete":
        keys = [inspect_shard(RUN, shard["key"], objects)["key"] for shard in answer["shards"]]
        plan_run(RUN, keys, using, objects, NoRecords())
    report: dict[str, Any] = json.loads(objects.contents[RUN.report_key])
    return report, objects
