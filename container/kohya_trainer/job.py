"""What one job is to do, read and checked before anything is trained."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kohya_trainer.base_model import LoadedBaseModel, load_base_model
from kohya_trainer.checked_options import checked_options
from kohya_trainer.command import entry_point
from kohya_trainer.environment import Environment
from kohya_trainer.errors import MissingGpuError, UnsupportedKohyaVersionError
from kohya_trainer.inputs import Inputs, load_inputs
from kohya_trainer.log import Log
from kohya_trainer.older_prompts import prompts_of_older_layout
from kohya_trainer.options import OptionTable, load_table
from kohya_trainer.staging import StagedDataset, stage

DEFAULT_OUTPUT_NAME = "model"


@dataclass(frozen=True)
class Job:
    """`script` is the trainer's; `options` are the user's and the plan's, with the base model's files."""

    environment: Environment
    script: Path
    table: OptionTable
    inputs: Inputs
    options: dict[str, Any]
    dataset: StagedDataset
    base_model: LoadedBaseModel

    @property
    def output_name(self) -> str:
        """A plain file name: it becomes part of paths."""
        named = self.inputs.plan.get("output_name") or self.inputs.config.get("output_name")
        return Path(str(named or "")).name.removesuffix(".safetensors") or DEFAULT_OUTPUT_NAME


def read_job(environment: Environment, log: Log) -> Job:
    """Stages the dataset and loads the base model. Raises TrainingError for whatever is missing or wrong."""
    _require_gpu(environment)
    script, table = entry_point(environment.kohya_home), load_table(environment.kohya_version)
    inputs = load_inputs(environment.folders)
    _require_planned_version(inputs, environment.kohya_version)
    options, notes = checked_options(inputs.config, table, inputs.older_layout)
    for note in notes:
        log.note(f"note: {note}")
    if inputs.older_layout:
        prompts, untaken = prompts_of_older_layout(inputs.config, environment.folders.dataset)
        inputs = replace(inputs, sample_prompts=prompts)
        if untaken:
            log.note(f"note: {untaken}")
    dataset = stage(inputs, environment.folders)
    log.note(f"staged {dataset.images} images in {dataset.files} files, dataset {dataset.digest}")
    base_model = load_base_model(inputs.base_model, options.get("pretrained_model_name_or_path"), environment)
    if base_model.name:
        options["pretrained_model_name_or_path"] = base_model.name
    if base_model.vae:
        options["vae"] = base_model.vae
    return Job(environment, script, table, inputs, options, dataset, base_model)


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
