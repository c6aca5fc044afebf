"""One training job, from SageMaker's folders to a proved model or an explained failure."""

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from kohya_trainer import orders as hook_orders
from kohya_trainer.base_model import LoadedBaseModel, load_base_model
from kohya_trainer.best_model import find_best, waited
from kohya_trainer.checkpoints import CheckpointStore, fingerprint
from kohya_trainer.command import (
    TrainerPaths,
    checked_options,
    entry_point,
    final_options,
    launch_arguments,
    network_variables,
)
from kohya_trainer.delivery import deliver
from kohya_trainer.environment import Environment, Folders, read_environment
from kohya_trainer.errors import (
    InterruptedTrainingError,
    MissingGpuError,
    TrainingError,
    UnprovedModelError,
    UnsupportedKohyaVersionError,
)
from kohya_trainer.execution import executed
from kohya_trainer.failure import DISK_FULL, classify, from_os_error, interrupted, write_failure
from kohya_trainer.inputs import Inputs, load_inputs
from kohya_trainer.kept_latents import drop_damaged, folder_of_latents
from kohya_trainer.kept_results import bring_back
from kohya_trainer.launch import Ended, run_trainer
from kohya_trainer.loss_history import VALIDATION_NAME, LossHistory
from kohya_trainer.model_proof import prove
from kohya_trainer.options import OptionTable, load_table
from kohya_trainer.orders import Orders
from kohya_trainer.provenance import Trained, gather_facts
from kohya_trainer.resume import Loop, ResumePoint, can_resume, expected_steps, resume_point, save_interval
from kohya_trainer.samples import prompt_lines
from kohya_trainer.staging import StagedDataset, stage
from kohya_trainer.toml_text import to_toml
from kohya_trainer.watch import TrainingWatch

DEFAULT_OUTPUT_NAME = "model"


@dataclass
class Log:
    """Prints, and remembers what the failure file quotes: the trainer's lines once there are any."""

    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """One line, at once: CloudWatch and the metrics read it as it comes."""
        print(text, flush=True)

    def note(self, text: str) -> None:
        """A line of this package's own."""
        self.say(text)
        self.lines.append(text)


def main(variables: Mapping[str, str]) -> int:
    """The exit code: 0 only with a proved model, else output/failure says why."""
    log = Log()
    _raise_on_signals()
    folders = Folders(Path(variables.get("TRAINING_ROOT") or "/opt/ml").absolute())
    try:
        train(read_environment(variables), variables, log)
        return 0
    except TrainingError as error:
        failure = error
    except OSError as error:
        failure = from_os_error(error)
    except Exception as error:
        # A fault of this package must be told as plainly as any other, or SageMaker shows nothing but a code.
        log.lines.extend(traceback.format_exc().splitlines())
        failure = TrainingError(
            f"The training container itself failed ({type(error).__name__}: {error}).",
            "Start the run again; if it fails again, report the last lines.",
        )
    log.say(f"failure class={failure.kind}\n{failure.cause}\nRemedy: {failure.remedy}")
    if failure.kind == DISK_FULL:
        # The failure file lies on the same volume; nothing that a restart needs is in `work`.
        shutil.rmtree(folders.work, ignore_errors=True)
    write_failure(folders.failure, failure, log.lines)
    return 1


def train(environment: Environment, variables: Mapping[str, str], log: Log) -> None:
    """Raises TrainingError when there is no proved model at the end."""
    began = time.time()
    folders = environment.folders
    _require_gpu(environment)
    script, table = entry_point(environment.kohya_home), load_table(environment.kohya_version)
    inputs = load_inputs(folders)
    _require_planned_version(inputs, environment.kohya_version)
    options, notes = checked_options(inputs.config, table, inputs.older_layout)
    for note in notes:
        log.note(f"note: {note}")
    dataset = stage(inputs, folders)
    log.note(f"staged {dataset.images} images in {dataset.files} files, dataset {dataset.digest}")
    base_model = load_base_model(inputs.base_model, options.get("pretrained_model_name_or_path"), environment)
    if base_model.name:
        options["pretrained_model_name_or_path"] = base_model.name
    if base_model.vae:
        options["vae"] = base_model.vae

    store = CheckpointStore(
        folders.checkpoints, fingerprint(inputs.config, dataset.digest, environment.machine.processes)
    )
    resume = _resume(store, options, table, environment.hooked, log)
    done = resume.done if resume else 0
    # SageMaker copies the checkpoints of all hosts to one place, where only the first one's belong.
    kept = folders.checkpoints if environment.machine.rank == 0 else folders.work
    history = LossHistory(kept, done)
    validations = LossHistory(kept, done, VALIDATION_NAME)
    output_name = _output_name(inputs)
    # The hooks keep latents; where there are none, the trainer would write them beside the images for nothing.
    images = dataset.images if environment.hooked else 0
    run = executed(options, inputs, table, environment.machine, variables, images)
    for line in run.lines:
        log.note(line)
    final = _final_options(environment, inputs, run.options, table, dataset, output_name, resume)
    bring_back(kept / "results", folders.work / "output", done)
    config_file = folders.work / "config.toml"
    config_file.write_text(to_toml(final), encoding="utf-8")
    orders = _orders(environment, inputs, final, resume, validations) if environment.hooked else None
    if orders and final.get("cache_latents_to_disk") and len(environment.machine.hosts) == 1:
        orders = _keeping_latents(orders, environment, table.resolved(final), dataset, base_model, log)
    told: dict[str, str] = {}
    if orders:
        orders.write(folders.work / "orders.json")
        told[hook_orders.VARIABLE] = str(folders.work / "orders.json")

    output = folders.work / "output"
    watch = TrainingWatch(
        final,
        output,
        store,
        history,
        validations,
        resume,
        orders,
        environment.stall_seconds,
        inputs.private,
        environment.machine.rank > 0,
        log.say,
    )
    arguments = launch_arguments(script, config_file, final, environment.machine)
    log.note(f"launching {' '.join(arguments)}")
    launched = {**variables, **network_variables(environment.machine), **base_model.variables}
    launched |= {**run.variables, **told}
    ended = run_trainer(arguments, script.parent, launched, watch)
    watch.close()
    log.lines = watch.lines or log.lines
    _judge(ended, watch)
    if environment.machine.rank > 0:
        log.note("trained; the first host proves and delivers the model")
        return
    written = output / f"{output_name}.safetensors"
    if watch.stopped_early and watch.best:
        shutil.copyfile(watch.best.path, written)
    if not written.is_file():
        raise classify(ended.code, watch.lines)
    model = prove(written, final)
    _check_steps(watch)
    trained = Trained(
        model, watch.step, watch.loss, done or None, watch.best, watch.stopped_early, ended.seconds
    )
    facts = gather_facts(
        environment, inputs, table.resolved(final), dataset, base_model.told(), trained, began
    )
    deliver(written, final, inputs, options, folders.model, (history, validations), watch.best, facts)
    log.note(f"proved {written.name}: {model.tensors} tensors, rank {model.rank}, norm {model.up_norm:.4g}")


def _require_gpu(environment: Environment) -> None:
    if not environment.rehearsal and environment.machine.lacks_its_gpu:
        raise MissingGpuError(
            f"{environment.machine.instance_type} has a GPU, but nvidia-smi lists none inside the container.",
            "Build the training image again (./dev push-image-source), then drop the dataset again.",
        )


def _require_planned_version(inputs: Inputs, version: str) -> None:
    """The options were judged by the table of the planned version."""
    planned = inputs.plan.get("kohya_version", version)
    if planned != version:
        raise UnsupportedKohyaVersionError(
            f"The run was planned for Kohya {planned}, but this image holds {version}.",
            "Build the training image for the planned version, then drop the dataset again.",
        )


def _resume(
    store: CheckpointStore, options: Mapping[str, Any], table: OptionTable, hooked: bool, log: Log
) -> ResumePoint | None:
    mine, others = store.found()
    if others:
        log.note("note: the checkpoints hold a state of other options, another dataset or number of GPUs")
    for checkpoint in mine:
        if not can_resume(table):
            log.note(f"note: Kohya {table.version} cannot continue with the right step count; starting again")
            return None
        accumulation = int(options.get("gradient_accumulation_steps", 1))
        loop = Loop(checkpoint.batches_per_epoch, accumulation, checkpoint.total)
        if point := resume_point(checkpoint.state, checkpoint.step, loop, hooked):
            log.note(f"resuming after step {point.done} of {loop.total}")
            return point
        log.note(f"note: the trainer cannot do exactly the steps missing after step {checkpoint.step}")
    return None


def _final_options(
    environment: Environment,
    inputs: Inputs,
    options: Mapping[str, Any],
    table: OptionTable,
    dataset: StagedDataset,
    output_name: str,
    resume: ResumePoint | None,
) -> dict[str, Any]:
    work = environment.folders.work
    for name in ("output", "logs", "states"):
        shutil.rmtree(work / name, ignore_errors=True)
        (work / name).mkdir(parents=True)
    prompts = work / "prompts.txt" if inputs.sample_prompts else None
    if prompts:
        lines = prompt_lines(inputs.sample_prompts, int(options.get("seed") or 0))
        prompts.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    paths = TrainerPaths(
        training=dataset.training,
        regularization=dataset.regularization,
        output=work / "output",
        logs=work / "logs",
        prompts=prompts,
        tokenizers=environment.tokenizer_cache,
    )
    planned = inputs.plan.get("total_steps")
    options = {**options}
    if extension := inputs.plan.get("caption_extension"):
        options["caption_extension"] = extension
    save_every = save_interval(
        expected_steps(options, table, planned, dataset.examples),
        inputs.plan.get("epochs"),
        int(options.get("gradient_accumulation_steps", 1)),
    )
    return final_options(options, table, paths, output_name, save_every, planned, resume, environment.hooked)


def _orders(
    environment: Environment,
    inputs: Inputs,
    final: Mapping[str, Any],
    resume: ResumePoint | None,
    validations: LossHistory,
) -> Orders:
    work = environment.folders.work
    (work / "save-now").unlink(missing_ok=True)
    best = find_best(validations)
    return Orders(
        states=str(work / "states"),
        save_now=str(work / "save-now"),
        done=resume.done if resume else 0,
        total=final.get("max_train_steps")
        if "max_train_epochs" not in final
        else inputs.plan.get("total_steps"),
        counter_start=resume.counter_start if resume else 0,
        resume=str(resume.state) if resume else None,
        exact=resume.exact if resume else False,
        save_every=environment.save_every,
        sample_every=None if final.get("sample_every_n_epochs") else final.get("sample_every_n_steps"),
        samples=bool(inputs.sample_prompts),
        patience=inputs.patience if final.get("validation_split") else None,
        best_loss=best.loss if best else None,
        waited=waited(validations, best),
    )


def _keeping_latents(
    orders: Orders,
    environment: Environment,
    options: Mapping[str, Any],
    dataset: StagedDataset,
    base_model: LoadedBaseModel,
    log: Log,
) -> Orders:
    trainer = f"{environment.kohya_version}{' (rehearsal)' if environment.rehearsal else ''}"
    folder = folder_of_latents(environment.folders.checkpoints, options, base_model.record, trainer)
    if found := drop_damaged(folder, frozenset(dataset.contents.values())):
        log.note(f"{found} images have their latents from an earlier launch")
    return replace(orders, latents=str(folder), contents=dict(dataset.contents))


def _judge(ended: Ended, watch: TrainingWatch) -> None:
    if watch.error:
        raise watch.error
    if ended.interrupted:
        raise interrupted(watch.step, watch.kept)
    if ended.code != 0 and not watch.stopped_early:
        raise classify(ended.code, watch.lines)


def _check_steps(watch: TrainingWatch) -> None:
    """A model of fewer steps than announced is not the one that was asked for."""
    if watch.total and watch.step < watch.total and not watch.stopped_early:
        raise UnprovedModelError(
            f"The trainer stopped after step {watch.step} of {watch.total}.",
            "Read the last log lines and start the run again.",
        )


def _output_name(inputs: Inputs) -> str:
    """A plain file name: it becomes part of paths."""
    name = str(inputs.plan.get("output_name") or inputs.config.get("output_name") or DEFAULT_OUTPUT_NAME)
    return Path(name).name.removesuffix(".safetensors") or DEFAULT_OUTPUT_NAME


def _raise_on_signals() -> None:
    """While inputs are read and checked; the trainer's launch puts its own handlers in their place."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise InterruptedTrainingError(
            "The job was interrupted outside the training itself.",
            "Start it again with the same checkpoints.",
        )

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


if __name__ == "__main__":
    sys.exit(main(os.environ))
