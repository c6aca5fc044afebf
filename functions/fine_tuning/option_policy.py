"""Which options of the trainer reach further than training, and what becomes of them.

Read in the trainer's source: network_module, optimizer_type and the like import any dotted name;
huggingface_* upload the result; wandb_api_key puts a secret into a file; others name paths of the machine, or
end the job before it trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fine_tuning import base_model, options
from fine_tuning.file_kinds import CAPTION_EXTENSIONS
from fine_tuning.findings import Finding, error, note
from fine_tuning.nearest import did_you_mean

_CAPTION_EXTENSION = ("caption_extension", "caption_extention")
# option → why it is refused
_REFUSED = {
    **dict.fromkeys(("dataset_class", "lr_scheduler_type"), "it imports code by name"),
    **dict.fromkeys(
        (
            "async_upload",
            "huggingface_path_in_repo",
            "huggingface_repo_id",
            "huggingface_repo_type",
            "huggingface_repo_visibility",
            "resume_from_huggingface",
            "save_state_to_huggingface",
        ),
        "it exchanges files with a model hub",
    ),
    **dict.fromkeys(
        ("huggingface_token", "wandb_api_key"), "it holds a secret, which would lie in S3 and in logs"
    ),
    **dict.fromkeys(
        (
            "base_weights",
            "conditioning_data_dir",
            "config_file",
            "console_log_file",
            "dataset_config",
            "in_json",
            "log_tracker_config",
            "network_weights",
            "offload_optimizer_nvme_path",
            "offload_param_nvme_path",
            "vae",
        ),
        "it names a file of the training machine, which holds only what the manifest brings",
    ),
    **dict.fromkeys(("debug_dataset", "output_config"), "it ends the job before anything is trained"),
    **dict.fromkeys(("v2", "deepspeed"), "an SDXL LoRA cannot be trained with it on one GPU"),
    "dim_from_weights": "it reads network_weights, a file of the training machine",
}
# option → who sets it. A configuration that was written for another machine names these; it need not be
# changed.
_OVERRIDDEN = {
    **dict.fromkeys(
        ("logging_dir", "output_dir", "reg_data_dir", "resume", "tokenizer_cache_dir", "train_data_dir"),
        "the training container sets it",
    ),
    **dict.fromkeys(
        ("initial_epoch", "initial_step", "skip_until_initial_step"),
        "the training container goes on where an interrupted job was",
    ),
    # The validation's images would take their captions from a cache of all, and images that are trained on
    # (train_util.py, DreamBoothDataset, load_dreambooth_dir).
    "cache_info": "a run's folder is new, so nothing would be read from it but the wrong images to validate with",
    "sample_prompts": "the manifest's `sample_prompts` decide",
    **dict.fromkeys(
        ("log_config", "log_prefix", "log_tracker_name", "log_with", "wandb_run_name"),
        "progress and loss are CloudWatch metrics",
    ),
    **dict.fromkeys(_CAPTION_EXTENSION, "captions with this and other extensions are staged as .txt"),
}
_FIXED_VALUES = {"save_model_as": "safetensors"}  # .ckpt and .pt are pickles: opening one runs code
NETWORK_MODULES = ("networks.lora", "networks.lora_fa", "networks.dylora")
# library/train_util.py, get_optimizer, without regard to case; a name with a dot is imported.
OPTIMIZERS = (
    "AdamW",
    "AdamW8bit",
    "PagedAdamW",
    "PagedAdamW8bit",
    "PagedAdamW32bit",
    "Lion",
    "Lion8bit",
    "PagedLion8bit",
    "SGDNesterov",
    "SGDNesterov8bit",
    "DAdaptation",
    "DAdaptAdamPreprint",
    "DAdaptAdam",
    "DAdaptAdaGrad",
    "DAdaptAdan",
    "DAdaptAdanIP",
    "DAdaptLion",
    "DAdaptSGD",
    "Prodigy",
    "Adafactor",
)
# Versions before v23 bring neither the package nor schedulers of newer transformers.
NEWER_OPTIMIZERS = ("AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree")
SCHEDULERS = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "piecewise_constant",
    "adafactor",
)
NEWER_SCHEDULERS = ("inverse_sqrt", "cosine_with_min_lr", "warmup_stable_decay")
_NAMED_OPTIONS = ("network_module", "optimizer_type", "lr_scheduler")
_TRACKERS_THAT_UPLOAD = ("wandb", "all")


def apply(given: Mapping[str, Any], where: str, kohya_version: str) -> tuple[dict[str, Any], list[Finding]]:
    """The options that may stay, and a finding for each that may not.

    `given` is what `options.check` accepted.
    """
    kept: dict[str, Any] = {}
    findings: list[Finding] = []
    for name, value in given.items():
        if _says_nothing(value):
            continue  # written by hand, or by older versions of kohya_ss' graphical interface
        if name == base_model.OPTION:
            continue  # base_model.judge tells what becomes of it
        if name in _NAMED_OPTIONS:
            allowed = allowed_names(name, kohya_version)
            # The trainer finds schedulers and modules by their exact name alone.
            if exact := {one.lower(): one for one in allowed}.get(value.lower()):
                kept[name] = exact
            else:
                findings.append(_name_not_allowed(name, value, allowed, where))
        elif problem := _judge(name, value, where):
            findings.append(problem)
        else:
            kept[name] = value
    return kept, findings


def allowed_names(option: str, kohya_version: str) -> tuple[str, ...]:
    """The names that network_module, optimizer_type or lr_scheduler may have."""
    newer = not options.is_older(kohya_version)
    return {
        "network_module": NETWORK_MODULES,
        "optimizer_type": OPTIMIZERS + (NEWER_OPTIMIZERS if newer else ()),
        "lr_scheduler": SCHEDULERS + (NEWER_SCHEDULERS if newer else ()),
    }[option]


def _says_nothing(value: Any) -> bool:
    return value in ("", [], [""])


def _judge(name: str, value: Any, where: str) -> Finding | None:
    if name in _REFUSED and value is not False:
        return error(
            "option-refused", where, f"The option {name} is refused: {_REFUSED[name]}.", "Remove it."
        )
    if name in _CAPTION_EXTENSION and value.lower() not in CAPTION_EXTENSIONS:
        expected = ", ".join(CAPTION_EXTENSIONS)
        message = f"The option {name} is '{value[:80]}'; captions are read from files that end in {expected}."
        return error(
            "option-invalid", where, message, f"Rename the captions to end in {CAPTION_EXTENSIONS[0]}."
        )
    if name == "log_with" and value in _TRACKERS_THAT_UPLOAD:
        message = f"The option log_with is refused: {value} sends the run to a service outside."
        return error("option-refused", where, message, "Remove it; progress and loss are CloudWatch metrics.")
    if name in _OVERRIDDEN:
        return note("option-overridden", where, f"The option {name} is not used: {_OVERRIDDEN[name]}.")
    if name in _FIXED_VALUES and value != _FIXED_VALUES[name]:
        message = f"The option {name} is always {_FIXED_VALUES[name]}."
        return note("option-overridden", where, message)
    if name == "output_name" and ("/" in value or "\\" in value or value.startswith(".")):
        return error(
            "option-refused", where, "The option output_name is refused: it is a path.", "Use a plain name."
        )
    return None


def _name_not_allowed(name: str, value: str, allowed: tuple[str, ...], where: str) -> Finding:
    remedy = f"Use one of: {', '.join(allowed)}."
    if "." in value and name != "network_module":
        message = f"The option {name} is refused: '{value[:80]}' imports code by name."
        return error("option-refused", where, message, remedy)
    guess = did_you_mean(value.lower(), [one.lower() for one in allowed])
    message = f"The option {name} does not take '{value[:80]}' here.{guess}"
    return error("option-refused", where, message, remedy)
