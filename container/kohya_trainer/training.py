"""One training job, from SageMaker's folders to a proved model or an explained failure."""

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from kohya_trainer.base_model import LoadedBaseModel, load_base_model
from kohya_trainer.checkpoints import CheckpointStore, fingerprint
from kohya_trainer.command import TrainerPaths, checked_options, entry_point, final_options, launch_arguments
from kohya_trainer.environment import Environment, Folders, read_environment
from kohya_trainer.errors import (
    InterruptedTrainingError,
    MissingGpuError,
    TrainingError,
    UnprovedModelError,
    UnsupportedKohyaVersionError,
)
from kohya_trainer.execution import executed
from kohya_trainer.failure import classify, from_os_error, interrupted, write_failure
from kohya_trainer.inputs import Inputs, load_inputs
from kohya_trainer.launch import Ended, run_trainer
from kohya_trainer.loss_history import LossHistory
from kohya_trainer.model_proof import ProvedModel, prove
from kohya_trainer.options import OptionTable, load_table
from kohya_trainer.provenance import write_provenance
from kohya_trainer.resume import Loop, ResumePoint, can_resume, expected_steps, resume_point, save_interval
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

    store = CheckpointStore(folders.checkpoints, fingerprint(inputs.config, dataset.digest))
    resume = _resume(store, options, table, log)
    history = LossHistory(folders.checkpoints, resume.done if resume else 0)
    output_name = _output_name(inputs)
    run = executed(options, inputs, table, environment.machine, variables)
    for line in run.lines:
        log.note(line)
    final = _final_options(environment, inputs, run.options, table, dataset, output_name, resume)
    config_file = folders.work / "config.toml"
    config_file.write_text(to_toml(final), encoding="utf-8")

    output = folders.work / "output"
    watch = TrainingWatch(final, output, store, history, resume, log.say)
    arguments = launch_arguments(script, config_file, final, environment.machine)
    log.note(f"launching {' '.join(arguments)}")
    ended = run_trainer(
        arguments,
        script.parent,
        {**variables, **base_model.variables, **run.variables},
        watch.output,
        watch.silence,
        watch.must_stop,
    )
    watch.close()
    log.lines = watch.lines or log.lines
    _judge(ended, watch)
    if environment.machine.rank > 0:
        log.note("trained; the first host proves and delivers the model")
        return
    written = output / f"{output_name}.safetensors"
    if not written.is_file():
        raise classify(ended.code, watch.lines)
    model = prove(written, final)
    _check_steps(watch)
    _deliver(output, written, options, folders.model, history.path)
    facts = _facts(environment, inputs, table, dataset, base_model, final, model, ended, watch, resume, began)
    write_provenance(folders.model, {**facts, "model": written.name})
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
    store: CheckpointStore, options: Mapping[str, Any], table: OptionTable, log: Log
) -> ResumePoint | None:
    for checkpoint in store.complete():
        if not can_resume(table):
            log.note(f"note: Kohya {table.version} cannot continue with the right step count; starting again")
            return None
        accumulation = int(options.get("gradient_accumulation_steps", 1))
        loop = Loop(checkpoint.batches_per_epoch, accumulation, checkpoint.total)
        if point := resume_point(checkpoint.state, checkpoint.step, loop):
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
    for name in ("output", "logs"):
        shutil.rmtree(work / name, ignore_errors=True)
        (work / name).mkdir(parents=True)
    prompts = work / "prompts.txt" if inputs.sample_prompts else None
    if prompts:
        # Kohya reads one prompt a line, and takes # for a comment.
        lines = (" ".join(prompt.split()).lstrip("# ") for prompt in inputs.sample_prompts)
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
    return final_options(options, table, paths, output_name, save_every, planned, resume)


def _judge(ended: Ended, watch: TrainingWatch) -> None:
    if watch.error:
        raise watch.error
    if ended.interrupted:
        raise interrupted(watch.step)
    if ended.code != 0:
        raise classify(ended.code, watch.lines)


def _check_steps(watch: TrainingWatch) -> None:
    """A model of fewer steps than announced is not the one that was asked for."""
    if watch.total and watch.step < watch.total:
        raise UnprovedModelError(
            f"The trainer stopped after step {watch.step} of {watch.total}.",
            "Read the last log lines and start the run again.",
        )


def _deliver(output: Path, written: Path, options: Mapping[str, Any], model: Path, history: Path) -> None:
    """Moves the result into model/; models in between are delivered only where the configuration asks for
    them.
    """
    model.mkdir(parents=True, exist_ok=True)
    wanted = (
        options.get("save_every_n_steps")
        or options.get("save_every_n_epochs")
        or options.get("save_n_epoch_ratio")
    )
    for path in sorted(output.glob("*.safetensors")) if wanted else [written]:
        shutil.move(path, model / path.name)
    samples = sorted((output / "sample").glob("*.png"))
    if samples:
        (model / "samples").mkdir(exist_ok=True)
    for path in samples:
        shutil.move(path, model / "samples" / path.name)
    shutil.copyfile(history, model / history.name)


def _facts(
    environment: Environment,
    inputs: Inputs,
    table: OptionTable,
    dataset: StagedDataset,
    base_model: LoadedBaseModel,
    final: Mapping[str, Any],
    model: ProvedModel,
    ended: Ended,
    watch: TrainingWatch,
    resume: ResumePoint | None,
    began: float,
) -> dict[str, Any]:
    plan = inputs.plan
    return {
        "run_id": environment.run_id or plan.get("run_id"),
        "rehearsal": environment.rehearsal or model.metadata.get("rehearsal") == "true",
        "dataset": {"sha256": dataset.digest, "files": dataset.files, "images": dataset.images},
        "base_model": base_model.told(),
        "image": environment.image,
        "kohya_version": environment.kohya_version,
        "options": table.resolved(final),
        "seed": final.get("seed"),
        "trigger_word": plan.get("trigger_word"),
        "licence": plan.get("licence"),
        "steps": watch.step,
        "resumed_after": resume.done if resume else None,
        "final_loss": watch.loss,
        "tensors": model.tensors,
        "rank": model.rank,
        "up_norm": model.up_norm,
        "hardware": {
            "gpus": list(environment.machine.gpus),
            "cpus": environment.machine.cpus,
            "hosts": len(environment.machine.hosts),
        },
        "timings": {
            "training_seconds": round(ended.seconds, 2),
            "total_seconds": round(time.time() - began, 2),
        },
    }


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
