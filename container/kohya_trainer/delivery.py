"""Puts into model/ what SageMaker uploads: models with their metadata, samples, histories, provenance.json last."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kohya_trainer.best_model import BestModel
from kohya_trainer.job import Job
from kohya_trainer.model_metadata import (
    delivered_metadata,
    read_metadata,
    tensors_sha256,
    write_with_metadata,
)
from kohya_trainer.model_proof import prove
from kohya_trainer.provenance import facts_between, write_provenance
from kohya_trainer.run_so_far import RunSoFar
from kohya_trainer.samples import deliver_samples

# With these the configuration asks for the models in between.
BY_STEPS = ("save_every_n_steps",)
BY_EPOCHS = ("save_every_n_epochs", "save_n_epoch_ratio")


def deliver(
    written: Path,
    final: Mapping[str, Any],
    job: Job,
    so_far: RunSoFar,
    best: BestModel | None,
    facts: Mapping[str, Any],
) -> None:
    """`written` is the proved model; a better validation before the last step is delivered beside it."""
    model, inputs = job.environment.folders.model, job.inputs
    model.mkdir(parents=True, exist_ok=True)
    models = {
        path.name: path
        for path in written.parent.glob("*.safetensors")
        if path == written or _was_asked_for(path.name, written.stem, job.options)
    }
    if best and not facts["stopped_early"] and best.step < facts["steps"]:
        prove(best.path, final)
        models[f"{written.stem}-best.safetensors"] = best.path
    for name, path in models.items():
        metadata = read_metadata(path)
        own = facts if path == written else facts_between(facts, metadata)
        told = delivered_metadata(metadata, own, tensors_sha256(path), inputs.private)
        write_with_metadata(path, model / name, told)
    deliver_samples(written.parent / "sample", model / "samples", inputs.sample_prompts, inputs.private)
    for history in (so_far.history, so_far.validations):
        if history.path.stat().st_size:
            shutil.copyfile(history.path, model / history.path.name)
    write_provenance(model, {**facts, "model": written.name})


def _was_asked_for(name: str, stem: str, options: Mapping[str, Any]) -> bool:
    """Where there are no hooks, the trainer writes a model beside each state, too."""
    asking = BY_STEPS if name.startswith(f"{stem}-step") else BY_EPOCHS
    return any(options.get(option) for option in asking)
