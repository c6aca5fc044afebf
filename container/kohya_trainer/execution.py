"""The recipe's execution half, asked of the machine that the job was given and handed to the trainer."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kohya_trainer.environment import Machine
from kohya_trainer.inputs import Inputs
from kohya_trainer.options import OptionTable
from kohya_trainer.recipe import Gpus, execution

# A person sets it to "off" for Kohya's own U-Net; trainer_process.py is given the settings, or "off".
VARIABLE = "KOHYA_ACCELERATION"
OFF = "off"


@dataclass(frozen=True)
class Executed:
    """`options` for the trainer, `variables` for its process, `lines` for the log."""

    options: dict[str, Any]
    variables: dict[str, str]
    lines: list[str]


def executed(
    options: Mapping[str, Any],
    inputs: Inputs,
    table: OptionTable,
    machine: Machine,
    variables: Mapping[str, str],
    images: int = 0,
) -> Executed:
    """Without a GPU nothing is chosen. What the user set stays: the plan names it; without a plan it is everything.

    images: of the dataset, whose latents can be kept.
    """
    memory = memory_of_a_gpu(variables) if machine.gpus else None
    if memory is None:
        return Executed(dict(options), {VARIABLE: OFF}, [])
    users = frozenset(inputs.plan.get("chosen_by_user", ()) if inputs.plan else inputs.config)
    accelerated = variables.get(VARIABLE) != OFF and "initial_step" in table
    gpus = Gpus(len(machine.gpus) * len(machine.hosts), memory, len(machine.hosts))
    recipe = execution(options, users, _pixels(options), gpus, machine.cpus, accelerated, images)
    chosen = {name: value for name, value in recipe.settings.items() if name in table}
    given = {VARIABLE: OFF}
    final = {**options, **chosen}
    if accelerated:
        settings = {
            "again": recipe.settings.get("computed_again", 0.0),
            "graphs": True,
            "base_model": final.get("pretrained_model_name_or_path"),
            "straight": bool(final.get("lowram")) and not final.get("disable_mmap_load_safetensors"),
            "text_encoders_once": not inputs.sample_prompts and not final.get("validation_split"),
        }
        given[VARIABLE] = json.dumps(settings)
    if recipe.settings.get("computed_again") or (not accelerated and final.get("gradient_checkpointing")):
        # Memory is short: what was freed in pieces must be of use to the next large tensor.
        given["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    return Executed(final, given, [f"recipe: {line}" for line in recipe.lines()])


def memory_of_a_gpu(variables: Mapping[str, str]) -> float | None:
    """GiB of the smallest GPU, by its driver, None where it does not tell; or what GPU_MEMORY_LIMIT_GB leaves of it."""
    if limit := variables.get("GPU_MEMORY_LIMIT_GB"):
        return float(limit)
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False).stdout.split()
        return min(int(number) for number in told) / 1024
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def _pixels(options: Mapping[str, Any]) -> int:
    """Of the largest bucket: none has more than the resolution's area."""
    sides = [int(side) for side in str(options.get("resolution", 1024)).split(",")]
    return sides[0] * sides[-1]
