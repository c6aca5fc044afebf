"""How Kohya is called: from options and machine to one argument vector and one TOML. No file is written
here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kohya_trainer.environment import Machine
from kohya_trainer.errors import InvalidConfigurationError, UnsupportedKohyaVersionError
from kohya_trainer.options import OptionTable
from kohya_trainer.resume import ResumePoint

TRAINER = "sdxl_train_network.py"
# Stands between launcher and trainer; a file, because the trainer must not see this package on its path.
TRAINER_PROCESS = Path(__file__).with_name("trainer_process.py")
RENDEZVOUS_PORT = 29500
MOST_THREADS_PER_PROCESS = 8
# torch takes 75 for what the trainer calls None; its own parser refuses the number.
CLIP_DEFAULT_TOKENS = 75
# They upload the result, write a secret into a file, or name data beside the inventory: what a run reads
# and writes is decided here alone.
FORBIDDEN_PREFIXES = ("huggingface_", "wandb_")
FORBIDDEN = frozenset(
    {
        "async_upload",
        "config_file",
        "dataset_class",
        "dataset_config",
        "in_json",
        "log_with",
        "output_config",
        "resume_from_huggingface",
        "save_state_to_huggingface",
    }
)


@dataclass(frozen=True)
class TrainerPaths:
    """The places that the trainer reads from and writes to."""

    training: Path
    regularization: Path | None
    output: Path
    logs: Path
    prompts: Path | None
    tokenizers: Path | None


def entry_point(kohya_home: Path) -> Path:
    """Since v23.0.0 the trainer lies in the submodule sd-scripts, before that at the root."""
    for script in (kohya_home / "sd-scripts" / TRAINER, kohya_home / TRAINER):
        if script.is_file():
            return script
    raise UnsupportedKohyaVersionError(
        f"There is no {TRAINER} below KOHYA_HOME.",
        "Build the image again with git clone --recurse-submodules.",
    )


def checked_options(
    config: Mapping[str, Any], table: OptionTable, older_layout: bool
) -> tuple[dict[str, Any], list[str]]:
    """The options that go to the trainer, and notes on what was left out.

    A planned configuration was judged before, so anything odd in it is an error. A dataset's own TOML was
    never judged: unknown keys, which Kohya ignores without a word, are left out with a note. A wrong
    value is an error in both.
    """
    notes: list[str] = []
    options = dict(config)
    if older_layout:
        if options.get("max_token_length") == CLIP_DEFAULT_TOKENS:
            del options["max_token_length"]
            notes.append("max_token_length = 75 is the default and is left out")
        for problem in table.problems(options):
            if problem.kind == "unknown":
                del options[problem.option]
                notes.append(f"{problem.message} and has no effect")
    for name in [name for name in options if name in FORBIDDEN or name.startswith(FORBIDDEN_PREFIXES)]:
        del options[name]
        notes.append(f"{name} reaches further than training and is left out")
    if problems := table.problems(options):
        raise InvalidConfigurationError(
            f"The configuration cannot be used: {'; '.join(problem.message for problem in problems[:5])}.",
            "Correct or remove these options.",
        )
    return options, notes


def final_options(
    options: Mapping[str, Any],
    table: OptionTable,
    paths: TrainerPaths,
    output_name: str,
    save_every: int,
    sample_at_end: int | None,
    resume: ResumePoint | None,
    hooked: bool,
) -> dict[str, Any]:
    """`options` with everything that this run decides itself: paths, format, checkpoints, samples, the
    step to go on from.

    save_every: steps between the trainer's own states; the hooks, where there are any, save them instead.
    sample_at_end: the last step, at which the prompts are drawn when no interval is configured.
    """
    final = {
        name: value
        for name, value in options.items()
        if name not in ("reg_data_dir", "resume", "sample_prompts")
    }
    final |= {
        "train_data_dir": str(paths.training),
        "output_dir": str(paths.output),
        "output_name": output_name,
        "save_model_as": "safetensors",
        "save_state": not hooked,
    }
    if hooked:
        for name in ("save_state_on_train_end", "save_last_n_epochs_state", "save_last_n_steps_state"):
            final.pop(name, None)
    else:
        final.setdefault("save_every_n_steps", save_every)
    if "logging_dir" in options:  # only then: it switches tensorboard on, whose files nobody reads here
        final["logging_dir"] = str(paths.logs)
    if paths.regularization:
        final["reg_data_dir"] = str(paths.regularization)
    if paths.tokenizers:
        final["tokenizer_cache_dir"] = str(paths.tokenizers)
    if paths.prompts:
        final["sample_prompts"] = str(paths.prompts)
        if sample_at_end and not any(
            final.get(name) for name in ("sample_every_n_steps", "sample_every_n_epochs")
        ):
            final["sample_every_n_steps"] = sample_at_end
    if resume:
        final["resume"] = str(resume.state)
        final["initial_step"] = resume.initial_step
        final["skip_until_initial_step"] = resume.skip
    if missing := [name for name in final if name not in table]:
        raise UnsupportedKohyaVersionError(
            f"Kohya {table.version} has no option {', '.join(sorted(missing))}.",
            "Use a supported version of Kohya.",
        )
    return final


def launch_arguments(
    script: Path, config_file: Path, options: Mapping[str, Any], machine: Machine
) -> list[str]:
    """Plain Python without a GPU or with one; with several, accelerate with one process a GPU of every host.

    accelerate sets nothing for one process that the trainer does not set itself, and takes seconds to import torch.
    """
    trainer = [str(TRAINER_PROCESS), str(script), "--config_file", str(config_file)]
    if machine.processes == 1:
        return [machine.python, *trainer]
    threads = max(1, min(MOST_THREADS_PER_PROCESS, machine.cpus // max(1, len(machine.gpus))))
    settings = {
        "num_processes": machine.processes,
        "num_machines": len(machine.hosts),
        "mixed_precision": options.get("mixed_precision", "no"),
        "num_cpu_threads_per_process": threads,
        "dynamo_backend": "no",
    }
    if len(machine.hosts) > 1:
        settings |= {
            "machine_rank": machine.rank,
            "main_process_ip": machine.hosts[0],
            "main_process_port": RENDEZVOUS_PORT,
        }
    return [
        machine.python,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        *(text for name, value in settings.items() for text in (f"--{name}", str(value))),
        *trainer,
    ]


def network_variables(machine: Machine) -> dict[str, str]:
    """Hosts reach each other by the interface that SageMaker names; NCCL and gloo would guess one."""
    if len(machine.hosts) == 1 or not machine.network_interface:
        return {}
    return dict.fromkeys(("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"), machine.network_interface)
