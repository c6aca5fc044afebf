"""How a step is carried out on the machine that the job was given, as the trainer is told it; nothing that is learned
changes by it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kohya_trainer.caption_options import FORBID_CACHED_CAPTIONS
from kohya_trainer.environment import Machine
from kohya_trainer.inputs import Inputs
from kohya_trainer.latent_options import cacheable, kept
from kohya_trainer.nvidia_smi import least_memory_gib
from kohya_trainer.options import OptionTable, takers
from kohya_trainer.recipe import Choice, Gpus, Recipe, computed_again, memory_gib

# A person sets it to "off" for Kohya's own U-Net; trainer_process.py is given the settings, or "off".
VARIABLE = "KOHYA_ACCELERATION"
OFF = "off"
# U-Net, both text encoders and the VAE in half precision take 6.9 GB; the caching passes a few more.
LEAST_FOR_STRAIGHT_LOADING = 15.0
# For pictures up to 1024 x 1024: the VAE in fp32 takes 3 GiB for one of them and 12.6 for four, and as many times that
# as a larger one has pixels.
LEAST_FOR_SEVERAL_LATENTS = 30.0
# Processes that load the data, for whose making the GPU waits (docs/benchmarks.md). One of them stacks 16 cached images
# in 30 ms.
MOST_LOADERS = 8
LOADERS_OF_CACHED = 2
# The trainer caches the weights in a caption as well, but no run here has tried it: it is left to who asks for it.
NOT_CACHED_UNASKED = (*FORBID_CACHED_CAPTIONS, "weighted_captions")


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
    limit = variables.get("GPU_MEMORY_LIMIT_GB")
    memory = (float(limit) if limit else least_memory_gib()) if machine.gpus else None
    if memory is None:
        return Executed(dict(options), {VARIABLE: OFF}, [])
    users = frozenset(inputs.plan.get("chosen_by_user", ()) if inputs.plan else inputs.config)
    newer = "initial_step" in table  # kohya_ss v25.2.2 with torch 2.7, not v22.6.2 with 2.1
    accelerated = newer and variables.get(VARIABLE) != OFF
    gpus = Gpus(len(machine.gpus) * len(machine.hosts), memory, len(machine.hosts))
    recipe = execution(options, users, _pixels(options), gpus, machine.cpus, accelerated, images, newer)
    chosen = _accepted(recipe, options, table)
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
    carried_out = Recipe(tuple(one for one in recipe.choices if one.option in {*chosen, "computed_again"}))
    return Executed(final, given, [f"recipe: {line}" for line in carried_out.lines()])


def _accepted(recipe: Recipe, options: Mapping[str, Any], table: OptionTable) -> dict[str, Any]:
    """What of the recipe the trainer is handed: nothing that would be refused from a user."""
    known = {name: value for name, value in recipe.settings.items() if name in table}
    refused = {problem.option for problem in table.problems({**options, **known})}
    return {name: value for name, value in known.items() if name not in refused}


def _pixels(options: Mapping[str, Any]) -> int:
    """Of the largest bucket: none has more than the resolution's area."""
    sides = [int(side) for side in str(options.get("resolution", 1024)).split(",")]
    return sides[0] * sides[-1]


def execution(
    options: Mapping[str, Any],
    chosen_by_user: frozenset[str],
    pixels: int,
    gpus: Gpus,
    cpus: int,
    accelerated: bool = True,
    images: int = 0,
    fused: bool = True,
) -> Recipe:
    """How a step is carried out on this machine.

    Args:
        pixels: of the largest bucket.
        cpus: of the host, which its GPUs share.
        images: files whose latents are cached.
        accelerated: whether the trainer's U-Net will be the fast one (kohya_trainer.acceleration).
        fused: whether torch's fused AdamW can be made before its parameters are on the GPU, as the trainer does; that
            of torch 2.1 refuses them (optim/adamw.py).
    """
    batch = int(options.get("train_batch_size", 1))
    whole = computed_again(options, batch, pixels, gpus.memory_gib, "plain") > 0
    choices = [
        Choice("gradient_checkpointing", whole, _needed(options, batch, pixels, float(whole), gpus, "plain"))
    ]
    if accelerated:
        share = computed_again(options, batch, pixels, gpus.memory_gib)
        if "gradient_checkpointing" in chosen_by_user:
            share = 1.0 if options.get("gradient_checkpointing") else 0.0
        # Not the trainer's: its own U-Net, which the fast one replaces, knows all or nothing.
        choices.append(Choice("computed_again", share, _needed(options, batch, pixels, share, gpus, "fast")))
    choices += _caching(options, chosen_by_user, gpus, images)
    if not any(options.get(name) for name in ("sdpa", "xformers", "mem_eff_attn")):
        choices.append(Choice("sdpa", True, "attention in one kernel"))
    if fused and takers(options)["optimizer_args"] == "AdamW" and not options.get("optimizer_args"):
        choices.append(Choice("optimizer_args", ["fused=True"], "one kernel for all parameters"))
    if gpus.memory_gib >= LEAST_FOR_STRAIGHT_LOADING:
        choices.append(
            Choice("lowram", True, "the checkpoint goes straight to the GPU, which has room for it")
        )
    if gpus.memory_gib >= LEAST_FOR_SEVERAL_LATENTS * max(1.0, pixels / 2**20):
        choices.append(Choice("vae_batch_size", 4, "latents are cached four at a time"))
        choices.append(Choice("highvram", True, "memory is not given back after each of them"))
    here = max(1, gpus.count // gpus.hosts)
    workers, reason = max(1, min(MOST_LOADERS, cpus // here // 2)), f"{cpus} CPUs for {here} GPUs"
    decided = {**options, **{choice.option: choice.value for choice in choices}}
    if decided.get("cache_latents") and decided.get("cache_text_encoder_outputs"):
        workers, reason = (
            min(LOADERS_OF_CACHED, workers),
            "images and captions are cached: batches are only stacked",
        )
    choices.append(Choice("max_data_loader_n_workers", workers, reason))
    if "max_data_loader_n_workers" in chosen_by_user:
        workers = int(options.get("max_data_loader_n_workers", 8))
    # torch refuses processes that last where there are none.
    lasting = "no new processes at each epoch" if workers else "the trainer's own process loads"
    choices.append(Choice("persistent_data_loader_workers", workers > 0, lasting))
    return Recipe(tuple(choice for choice in choices if choice.option not in chosen_by_user))


def _needed(
    options: Mapping[str, Any], batch: int, pixels: int, again: float, gpus: Gpus, execution: str
) -> str:
    needed = memory_gib(options, batch, pixels, again, execution)
    return f"so batch {batch} takes {needed:.0f} of {gpus.memory_gib:.0f} GiB in the {execution} U-Net"


def _caching(
    options: Mapping[str, Any], chosen_by_user: frozenset[str], gpus: Gpus, images: int
) -> list[Choice]:
    choices = []
    if cacheable(options, chosen_by_user) and not options.get("cache_latents"):
        choices.append(Choice("cache_latents", True, "no option changes the pictures between epochs"))
    # Each host has a disk of its own, and the trainer looks for every picture's latents on each.
    if gpus.hosts == 1 and kept(options, chosen_by_user, images):
        reason = f"a restart finds the latents of {images} images, and several GPUs share the work"
        choices.append(Choice("cache_latents_to_disk", True, reason))
    changing = not options.get("network_train_unet_only") or any(
        options.get(name) for name in NOT_CACHED_UNASKED
    )
    if not changing and not options.get("cache_text_encoder_outputs"):
        reason = "captions and their encoders stay as they are"
        choices.append(Choice("cache_text_encoder_outputs", True, reason))
    return choices
