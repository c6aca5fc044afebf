"""The options of config.toml: those that were asked for, and what a run decides itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kohya_trainer.errors import UnsupportedKohyaVersionError
from kohya_trainer.options import OptionTable
from kohya_trainer.resume import ResumePoint


@dataclass(frozen=True)
class TrainerPaths:
    """The places that the trainer reads from and writes to."""

    training: Path
    regularization: Path | None
    output: Path
    logs: Path
    prompts: Path | None
    tokenizers: Path | None


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
        if any(final.get(name) for name in ("save_every_n_epochs", "save_n_epoch_ratio")):
            # With each model in between the trainer saves a state, too, which nobody goes on from.
            final.setdefault("save_last_n_epochs_state", 1)
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
