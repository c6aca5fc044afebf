"""The files that the trainer is started with: config.toml, prompts.txt and, where hooks follow it, orders.json."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kohya_trainer.best_model import find_best, waited
from kohya_trainer.final_options import TrainerPaths, final_options
from kohya_trainer.job import Job
from kohya_trainer.kept_latents import drop_damaged, folder_of_latents
from kohya_trainer.kept_results import bring_back
from kohya_trainer.log import Log
from kohya_trainer.nvidia_smi import least_memory_gib
from kohya_trainer.orders import Orders
from kohya_trainer.resume import expected_steps, save_interval
from kohya_trainer.run_so_far import RunSoFar
from kohya_trainer.samples import picture_size, prompt_lines
from kohya_trainer.toml_text import to_toml

# Where nobody says one. The trainer would draw another in every process and launch, and each would part and order the
# images by its own: some are trained on twice, others never.
SEED = 1234


@dataclass(frozen=True)
class TrainerFiles:
    """`options` are those of the file `config`; the trainer writes into `output`. Without hooks there are no orders."""

    config: Path
    options: dict[str, Any]
    output: Path
    orders: Orders | None
    orders_file: Path


def write_trainer_files(job: Job, so_far: RunSoFar, options: Mapping[str, Any], log: Log) -> TrainerFiles:
    """`options` with how a step is carried out on this machine. What an earlier trainer left in work/ is deleted."""
    work = job.environment.folders.work
    for name in ("output", "logs", "states"):
        shutil.rmtree(work / name, ignore_errors=True)
        (work / name).mkdir(parents=True)
    if "seed" not in options:
        log.note(f"note: seed is not set, {SEED} is taken")
    final = _final_options(job, so_far, options, work)
    for name in bring_back(so_far.results, work / "output", so_far.listed, so_far.done):
        log.note(f"note: {name} of an earlier launch did not come back whole")
    files = TrainerFiles(
        config=work / "config.toml",
        options=final,
        output=work / "output",
        orders=_orders(job, so_far, final, log) if job.environment.hooked else None,
        orders_file=work / "orders.json",
    )
    files.config.write_text(to_toml(final), encoding="utf-8")
    if files.orders:
        files.orders.write(files.orders_file)
    return files


def _final_options(job: Job, so_far: RunSoFar, options: Mapping[str, Any], work: Path) -> dict[str, Any]:
    plan, options = job.inputs.plan, {"seed": SEED, **options}
    paths = TrainerPaths(
        training=job.dataset.training,
        regularization=job.dataset.regularization,
        output=work / "output",
        logs=work / "logs",
        prompts=_write_prompts(job, work / "prompts.txt", options),
        tokenizers=job.environment.tokenizer_cache,
    )
    planned = plan.get("total_steps")
    if extension := plan.get("caption_extension"):
        options["caption_extension"] = extension
    expected = expected_steps(options, job.table, planned, job.dataset.examples)
    save_every = save_interval(
        expected,
        plan.get("epochs"),
        int(options.get("gradient_accumulation_steps", 1)),
    )
    # Without a plan the last step is known unless the trainer computes it from epochs.
    last = planned or (None if options.get("max_train_epochs") else expected)
    return final_options(
        options, job.table, paths, job.output_name, save_every, last, so_far.resume, job.environment.hooked
    )


def _write_prompts(job: Job, path: Path, options: Mapping[str, Any]) -> Path | None:
    if not job.inputs.sample_prompts:
        return None
    memory = least_memory_gib() if job.environment.machine.gpus else None
    lines = prompt_lines(job.inputs.sample_prompts, int(options["seed"]), picture_size(options, memory))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _orders(job: Job, so_far: RunSoFar, final: Mapping[str, Any], log: Log) -> Orders:
    work, resume = job.environment.folders.work, so_far.resume
    (work / "save-now").unlink(missing_ok=True)
    best = find_best(so_far.validations)
    orders = Orders(
        states=str(work / "states"),
        save_now=str(work / "save-now"),
        done=so_far.done,
        counter_start=resume.counter_start if resume else 0,
        resume=str(resume.state) if resume else None,
        exact=resume.exact if resume else False,
        save_every=job.environment.save_every,
        sample_every=None if final.get("sample_every_n_epochs") else final.get("sample_every_n_steps"),
        samples=bool(job.inputs.sample_prompts),
        patience=job.inputs.patience if final.get("validation_split") else None,
        best_loss=best.loss if best else None,
        waited=waited(so_far.validations, best),
    )
    if final.get("cache_latents_to_disk") and len(job.environment.machine.hosts) == 1:
        folder = _latents(job, job.table.resolved(final), log)
        return replace(orders, latents=str(folder), contents=dict(job.dataset.contents))
    return orders


def _latents(job: Job, options: Mapping[str, Any], log: Log) -> Path:
    environment = job.environment
    trainer = f"{environment.kohya_version}{' (rehearsal)' if environment.rehearsal else ''}"
    folder = folder_of_latents(environment.folders.checkpoints, options, job.base_model.record, trainer)
    if found := drop_damaged(folder, frozenset(job.dataset.contents.values())):
        log.note(f"{found} images have their latents from an earlier launch")
    return folder
