"""provenance.json: what the model was made of and how, beside the model, with the digest of every
delivered file.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kohya_trainer.best_model import BestModel
from kohya_trainer.job import Job
from kohya_trainer.model_proof import ProvedModel
from kohya_trainer.options import OptionTable
from kohya_trainer.staging import sha256_of
from kohya_trainer.version import kohya_commits

NAME = "provenance.json"
SCHEMA_VERSION = 1
# The options whose text a private run tells beside numbers and choices: in any other one stand a person's own words,
# or names of files and folders.
TEXTS_TOLD = frozenset(
    {
        "caption_extension",
        "face_crop_aug_range",
        "lr_scheduler",
        "lr_scheduler_args",
        "lr_scheduler_type",
        "network_args",
        "network_module",
        "optimizer_args",
        "optimizer_type",
        "output_name",
        "pretrained_model_name_or_path",
        "resolution",
    }
)
# Of the last model alone.
OF_THE_LAST = frozenset({"final_loss", "steps", "up_norm"})


def delivered_files(model: Path) -> list[dict[str, Any]]:
    """[{"name" (relative), "size" (bytes), "sha256"}], sorted by name."""
    paths = sorted(path for path in model.rglob("*") if path.is_file() and path.name != NAME)
    return [
        {"name": path.relative_to(model).as_posix(), "size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in paths
    ]


@dataclass(frozen=True)
class Trained:
    """How the training went; `seconds` of this launch alone, `resumed_after` a step of an earlier one."""

    model: ProvedModel
    steps: int
    loss: float | None
    resumed_after: int | None
    best: BestModel | None
    stopped_early: bool
    seconds: float


def without_texts(options: Mapping[str, Any], table: OptionTable) -> dict[str, Any]:
    """What a private run tells of its options."""
    return {
        name: value
        for name, value in options.items()
        if not isinstance(value, str | list) or name in TEXTS_TOLD or table.options[name].get("choices")
    }


def facts_between(facts: Mapping[str, Any], metadata: Mapping[str, str]) -> dict[str, Any]:
    """Of a model that was saved before the last one, with that metadata of the trainer's."""
    own = {name: value for name, value in facts.items() if name not in OF_THE_LAST}
    return {**own, "steps": int(metadata["ss_steps"])} if metadata.get("ss_steps", "").isdecimal() else own


def gather_facts(job: Job, options: Mapping[str, Any], trained: Trained, began: float) -> dict[str, Any]:
    """What goes into provenance.json and into the model's own metadata. `began`: seconds since the epoch."""
    environment, dataset = job.environment, job.dataset
    plan, machine, model = job.inputs.plan, environment.machine, trained.model
    best = {"step": trained.best.step, "loss": trained.best.loss} if trained.best else None
    return {
        "run_id": environment.run_id or plan.get("run_id"),
        "rehearsal": environment.rehearsal or model.metadata.get("rehearsal") == "true",
        "dataset": {"sha256": dataset.digest, "files": dataset.files, "images": dataset.images},
        "base_model": job.base_model.told(),
        "image": environment.image,
        "source_commit": environment.source_commit,
        "kohya_version": environment.kohya_version,
        **kohya_commits(environment.kohya_home),
        "options": without_texts(options, job.table) if job.inputs.private else dict(options),
        "seed": options.get("seed"),
        "trigger_word": plan.get("trigger_word"),
        "licence": plan.get("licence"),
        "privacy": job.inputs.private,
        "steps": trained.steps,
        "resumed_after": trained.resumed_after,
        "final_loss": trained.loss,
        "best_validation": best,
        "stopped_early": trained.stopped_early,
        "tensors": model.tensors,
        "rank": model.rank,
        "up_norm": model.up_norm,
        "hardware": {
            "instance_type": machine.instance_type,
            "gpus": list(machine.gpus),
            "cpus": machine.cpus,
            "hosts": len(machine.hosts),
        },
        "timings": {
            "training_seconds": round(trained.seconds, 2),
            "total_seconds": round(time.time() - began, 2),
        },
    }


def write_provenance(model: Path, facts: Mapping[str, Any]) -> Path:
    """Written last, so that a provenance.json stands for a whole delivery."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "files": delivered_files(model),
    }
    path = model / NAME
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
