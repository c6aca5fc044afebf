"""A manifest was dropped: start its run, or say what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fine_tuning import manifest
from fine_tuning.aws.executions import Executions
from fine_tuning.aws.mail import Mail
from fine_tuning.aws.objects import Objects
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.errors import ObjectMissingError
from fine_tuning.findings import Finding, error
from fine_tuning.paths import is_downloadable
from fine_tuning.report import rejection
from fine_tuning.run import MANIFEST_NAME, RESERVED_PREFIXES, Run
from fine_tuning.statuses import is_final
from fine_tuning.steps.telling import tell


@dataclass(frozen=True)
class Drop:
    """What an 'Object Created' event says: bucket, key (not URL-encoded) and version of the object."""

    bucket: str
    key: str
    version: str

    @classmethod
    def of_event(cls, event: dict[str, Any]) -> Drop:
        detail = event["detail"]
        return cls(
            detail["bucket"]["name"], detail["object"]["key"], detail["object"].get("version-id") or "null"
        )

    def is_manifest_of(self, bucket: str) -> bool:
        """Whether this is a dataset's manifest in that bucket; everything else is ignored silently."""
        is_manifest = self.key.endswith(f"/{MANIFEST_NAME}")
        return self.bucket == bucket and is_manifest and not self.key.startswith(RESERVED_PREFIXES)


def receive(
    drop: Drop, objects: Objects, records: RunRecords, executions: Executions, mail: Mail
) -> dict[str, str | None]:
    """Started, rejected, or ignored. Safe to repeat: a run has one record, one execution and one e-mail."""
    if not drop.is_manifest_of(objects.bucket):
        return {"status": "IGNORED", "run_id": None}
    run = Run.of_manifest(drop.bucket, drop.key, drop.version)
    try:
        accepted, findings = _judge(run, objects)
    except ObjectMissingError:
        # Deleted before it was read: nobody waits for this run any more.
        return {"status": "IGNORED", "run_id": run.run_id}
    is_new = records.create(run, executions.arn_of(run.run_id))
    if accepted:
        status = "RECEIVED" if is_new else str(records.find(run.run_id)["status"])
        if is_final(status):
            # A late delivery for a run that is over: no flow could change its record any more.
            return {"status": status, "run_id": run.run_id}
        executions.start(run.run_id, run.as_payload())
        return {"status": "RECEIVED", "run_id": run.run_id}
    objects.write_document(run.report_key, rejection(findings))
    told = tell(run, "rejected", {}, objects, records, mail)
    return {"status": told["status"], "run_id": run.run_id}


def _judge(run: Run, objects: Objects) -> tuple[bool, list[Finding]]:
    oversize = manifest.too_large(objects.size(run.manifest_key, run.manifest_version))
    if oversize:
        return False, [oversize]
    _, findings = manifest.judge(objects.read(run.manifest_key, run.manifest_version))
    if not is_downloadable(run.manifest_key):
        findings = [*findings, _undownloadable(run)]
    return not findings, findings


def _undownloadable(run: Run) -> Finding:
    message = f"There is '//' in {run.uri(run.manifest_key)}; SageMaker downloads no such dataset."
    remedy = "Copy the whole dataset to an address with single slashes, and delete this one."
    return error("file-name-unusable", MANIFEST_NAME, message, remedy)
