"""The plan of a run: findings merged, buckets and steps computed, time and cost quoted, everything resolved.

Pure: `plan` takes what was inspected and read, and returns the documents to write. plan.json is version 1 of
docs/contracts.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fine_tuning import base_model, buckets, dataset, instances, ladder, quote, validation
from fine_tuning.base_model import BaseModel
from fine_tuning.configuration import CAPTION_EXTENSION, Configuration, resolve
from fine_tuning.findings import Finding, error, has_errors, in_order
from fine_tuning.inventory import InspectedFile
from fine_tuning.ladder import Rung
from fine_tuning.layout import Layout, lay_out
from fine_tuning.limits import Limits
from fine_tuning.manifest import Manifest
from fine_tuning.offers import fitted, offers
from fine_tuning.run import MANIFEST_NAME, TOML_NAME, Run
from fine_tuning.schedule import Schedule


@dataclass(frozen=True)
class Decision:
    """The outcome of planning.

    Attributes:
        plan: plan.json, None when rejected.
        summary: the plan as the flow and the record hold it, on the first rung; None when rejected.
        rungs: what the run may be trained on, in order.
        config: options of config.toml.
        buckets: aspect buckets of an epoch, for the report.
    """

    findings: tuple[Finding, ...]
    plan: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None
    quote: quote.Quote | None = None
    config: dict[str, Any] | None = None
    base_model: BaseModel | None = None
    buckets: tuple[buckets.Bucket, ...] = ()
    rungs: tuple[Rung, ...] = ()

    @property
    def accepted(self) -> bool:
        return self.plan is not None


def plan(
    run: Run,
    manifest: Manifest,
    files: Sequence[InspectedFile],
    toml: bytes | None,
    found: Sequence[Finding],
    limits: Limits,
    kept: Mapping[str, Any] | None = None,
) -> Decision:
    """Judges a dataset whose files were all inspected.

    Args:
        files: every file of the inventory; `found`: what inspection says of them.
        toml: content of the user's configuration in the inventoried version, None without one.
        kept: `recipe` of the plan of the run that is retried with the same files.
    """
    configuration = resolve(manifest, toml, limits.kohya_version, limits.instance_types)
    layout = lay_out(
        files=files,
        repeats=manifest.repeats,
        trigger_word=manifest.trigger_word,
        caption_extension=CAPTION_EXTENSION,
        preferred_captions=configuration.preferred_captions,
        repeats_given="repeats" in manifest.document,
    )
    findings = [*_about_used(found, layout), *configuration.findings, *layout.findings]
    disk = instances.smallest_disk(manifest.instance_types or limits.instance_types, limits.volume_gb)
    findings += dataset.judge(files, layout, configuration.values, manifest.trigger_word, disk)
    asked_in = MANIFEST_NAME if manifest.validation_split else configuration.where("validation_split")
    findings += validation.judge(layout.folders, configuration.values, asked_in)
    model = None
    try:
        model = base_model.base_model(manifest.base_model, configuration.named_model, run.bucket)
        findings += base_model.judge(model, manifest.base_model, configuration.named_model)
    except base_model.BaseModelElsewhereError as problem:
        findings.append(error("base-model-elsewhere", MANIFEST_NAME, problem.cause, problem.remedy))
    try:
        options = buckets.BucketOptions.of_config(configuration.values)
        filled = buckets.fill(layout.folders, options, buckets.HeldBack.of_config(configuration.values))
    except buckets.BucketOptionsError as problem:
        remedy = "Correct resolution or the bucket options in the configuration."
        message = f"No aspect buckets can be made of these options: {problem}."
        findings.append(error("option-invalid", _source(configuration), message, remedy))
        return Decision(tuple(in_order(findings)))
    except buckets.NoBucketError:  # told of each such image
        return Decision(tuple(in_order(findings)))
    if not layout.images or model is None:
        return Decision(tuple(in_order(findings)))
    return _decide(run, manifest, layout, configuration, model, options, filled, findings, limits, kept)


def _about_used(found: Sequence[Finding], layout: Layout) -> list[Finding]:
    """Without what is wrong with files that are not used; what the manifest declares of them must hold all the same."""
    return [
        finding
        for finding in found
        if finding.path not in layout.not_used or finding.code in ("file-size-differs", "file-digest-differs")
    ]


def _decide(
    run: Run,
    manifest: Manifest,
    layout: Layout,
    configuration: Configuration,
    model: BaseModel,
    options: buckets.BucketOptions,
    filled: list[buckets.Bucket],
    findings: list[Finding],
    limits: Limits,
    recipe: Mapping[str, Any] | None,
) -> Decision:
    recipes = fitted(manifest, configuration, filled, options.resolution, limits, recipe)
    configurations = {gpus: found for gpus, (found, _) in recipes.items()}
    images = sum(len(folder.images) for folder in layout.folders)
    offered = offers(
        manifest=manifest,
        configurations=configurations,
        before=configuration.values,
        filled=filled,
        images=images,
        resolution=options.resolution,
        limits=limits,
    )
    kept, said = ladder.choose(offered)
    configuration, told = recipes[(kept or offered)[0].gpus]
    findings = [*findings, *told, *said]
    if has_errors(findings):
        quoted = (kept or offered)[0].quoted
        return Decision(tuple(in_order(findings)), quote=quoted, buckets=tuple(filled))
    first = kept[0]
    total_steps = first.length.total_steps
    rungs = ladder.rungs(kept, manifest.spot)
    return Decision(
        findings=tuple(in_order(findings)),
        plan=_document(run, manifest, layout, configuration, model, first.length, limits),
        summary={
            "total_steps": total_steps,
            "images": len(layout.images),
            **rungs[0].as_document(),
        },
        quote=first.quoted,
        # Complete: without a length the trainer silently makes 1600 steps.
        config={**configuration.values, "max_train_steps": total_steps},
        base_model=model,
        buckets=tuple(filled),
        rungs=rungs,
    )


def _document(
    run: Run,
    manifest: Manifest,
    layout: Layout,
    configuration: Configuration,
    model: BaseModel,
    length: Schedule,
    limits: Limits,
) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "run_id": run.run_id,
        "kohya_version": limits.kohya_version,
        "output_name": configuration.values.get("output_name") or _plain_name(run.dataset),
        "layout": [folder.as_document() for folder in layout.folders],
        "caption_extension": CAPTION_EXTENSION,
        "total_steps": length.total_steps,
        "epochs": length.epochs,
        "base_model": model.as_document(),
        "sample_prompts": list(manifest.sample_prompts),
        "trigger_word": manifest.trigger_word,
        "licence": manifest.licence,
        "privacy": manifest.privacy,
        "validation_patience": manifest.validation_patience,
        "recipe": dict(configuration.chosen),
        # The preset's options may be carried out differently on the machine found; these may not.
        "chosen_by_user": sorted(configuration.by_user),
    }


def _plain_name(dataset: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", dataset).strip("-.")[:64] or "lora"


def _source(configuration: Configuration) -> str:
    """The file whose bucket options are to be corrected."""
    names = (
        "resolution",
        "enable_bucket",
        "min_bucket_reso",
        "max_bucket_reso",
        "bucket_reso_steps",
        "bucket_no_upscale",
    )
    return TOML_NAME if any(name in configuration.layers[1] for name in names) else MANIFEST_NAME
