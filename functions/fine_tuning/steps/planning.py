"""Merges what was found, decides, and writes what the training job will read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fine_tuning import kohya_toml, own_runs, plan
from fine_tuning.aws.objects import Objects
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.errors import ObjectMissingError
from fine_tuning.findings import Finding, error, warning
from fine_tuning.inventory import InspectedFile, as_lines, from_lines
from fine_tuning.limits import Limits, budget
from fine_tuning.manifest import Manifest
from fine_tuning.pipeline_parameters import ladder_of
from fine_tuning.report import report
from fine_tuning.run import MANIFEST_NAME, TOML_NAME, Run
from fine_tuning.settings import Settings
from fine_tuning.steps.reading import read_manifest


def plan_run(
    run: Run, result_keys: Sequence[str], settings: Settings, objects: Objects, records: RunRecords
) -> dict[str, Any]:
    """The decision, with the plan and the ladder of instances when accepted."""
    manifest = read_manifest(run, objects)
    files, findings = _results(result_keys, objects)
    findings += _base_model_missing(run, manifest, objects)
    differs, kept = _of_first(run, files, objects)
    findings += differs
    limits = Limits(
        kohya_version=settings.kohya_version,
        instance_types=settings.instance_types,
        volume_gb=settings.training_volume_gb,
        max_runtime_seconds=settings.max_training_runtime_seconds,
        max_cost_usd=settings.max_cost_usd,
        prices=settings.prices,
        corrections=own_runs.corrections(records.newest_completed()),
    )
    decision = plan.plan(run, manifest, files, _toml(run, files, objects), findings, limits, kept)
    objects.write_document(run.report_key, report(decision))
    if decision.plan is None or decision.config is None:
        return {"decision": "rejected", "plan": None, "ladder": [], "budget_usd": None}
    objects.write(run.config_key, kohya_toml.write(decision.config), "application/toml")
    objects.write(run.inventory_key, as_lines(files), "application/jsonl")
    objects.write_document(run.plan_key, decision.plan)
    records.advance(run.run_id, "PLANNED", {"plan": decision.summary})
    return {
        "decision": "accepted",
        "plan": decision.summary,
        "ladder": ladder_of(run, decision, limits),
        "budget_usd": budget(manifest, limits),
    }


def _results(keys: Sequence[str], objects: Objects) -> tuple[list[InspectedFile], list[Finding]]:
    files: list[InspectedFile] = []
    findings: list[Finding] = []
    for key in keys:
        result = objects.read_document(key)
        files += [InspectedFile.from_document(document) for document in result["files"]]
        findings += [Finding.from_document(document) for document in result["findings"]]
    return sorted(files, key=lambda file: file.path), findings


def _toml(run: Run, files: Sequence[InspectedFile], objects: Objects) -> bytes | None:
    """The user's configuration in the version that the inventory names."""
    version = next((file.version_id for file in files if file.path == TOML_NAME), None)
    if not any(file.path == TOML_NAME for file in files):
        return None
    return objects.read(run.dataset_prefix + TOML_NAME, version)


def _of_first(
    run: Run, files: Sequence[InspectedFile], objects: Objects
) -> tuple[list[Finding], dict[str, Any] | None]:
    """What a retry takes over of the first run's plan: the recipe chosen then, so that a checkpoint of it is continued.

    With other files it begins anew: the trainer finds no checkpoint of them.
    """
    if run.retries is None:
        return [], None
    first = replace(run, run_id=run.retries)
    try:
        before = from_lines(objects.read(first.inventory_key))
        plan_before = objects.read_document(first.plan_key)
    except ObjectMissingError:
        return [], None  # it ended before it was planned
    if {(file.path, file.sha256) for file in before} == {(file.path, file.sha256) for file in files}:
        return [], plan_before["recipe"]
    message = (
        f"The files are others than those of the run {run.retries}, so no checkpoint of it is continued."
    )
    remedy = "Nothing to do, or put the files back and retry again."
    return [warning("retry-differs", "", message, remedy)], None


def _base_model_missing(run: Run, manifest: Manifest, objects: Objects) -> list[Finding]:
    address = manifest.base_model or ""
    prefix = f"s3://{run.bucket}/"
    if not address.startswith(prefix) or objects.exists(address[len(prefix) :]):
        return []
    remedy = "Upload it there, or correct `base_model`."
    return [error("base-model-missing", MANIFEST_NAME, f"There is no base model at {address}.", remedy)]
