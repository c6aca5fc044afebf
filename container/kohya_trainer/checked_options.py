"""Which options of a configuration the trainer may be given."""

from collections.abc import Mapping
from typing import Any

from kohya_trainer.errors import InvalidConfigurationError
from kohya_trainer.options import OptionTable

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
    if options.pop("cache_info", False):
        # Images to validate with would be some of those that are trained on, with other images' captions
        # (library/train_util.py, load_dreambooth_dir).
        notes.append("cache_info gains nothing in a folder that is new and is left out")
    if options.get("network_module") == "networks.dylora" and not options.get("network_train_unet_only"):
        raise InvalidConfigurationError(
            "networks.dylora gives the modules of both text encoders the same names: one encoder's are lost, and "
            "no program finds the other's.",
            "Set network_train_unet_only to true, or network_module to networks.lora.",
        )
    if problems := table.problems(options):
        raise InvalidConfigurationError(
            f"The configuration cannot be used: {'; '.join(problem.message for problem in problems[:5])}.",
            "Correct or remove these options.",
        )
    return options, notes
