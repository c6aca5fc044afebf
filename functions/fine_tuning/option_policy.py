"""Which options of the trainer reach further than training, and what becomes of them.

Read in the trainer's source: network_module, optimizer_type and the like import any dotted name;
huggingface_* upload the result; wandb_api_key puts a secret into a file; others name paths of the machine, or
end the job before it trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fine_tuning.findings import Finding, error, note
from fine_tuning.nearest import did_you_mean

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
}
# option → who sets it. A configuration that was written for another machine names these; it need not be
# changed.
_OVERRIDDEN = {
    **dict.fromkeys(
        ("logging_dir", "output_dir", "reg_data_dir", "resume", "tokenizer_cache_dir", "train_data_dir"),
        "the training container sets it",
    ),
    "pretrained_model_name_or_path": "the manifest's `base_model` decides",
    "sample_prompts": "the manifest's `sample_prompts` decide",
    "caption_extension": "captions are renamed to .txt for the trainer",
    "caption_extention": "captions are renamed to .txt for the trainer",
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
    "DAdaptAdam",
    "DAdaptAdaGrad",
    "DAdaptAdan",
    "DAdaptLion",
    "DAdaptSGD",
    "Prodigy",
    "AdaFactor",
)
SCHEDULERS = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "warmup_stable_decay",
    "piecewise_constant",
    "adafactor",
)
_ALLOWED_NAMES = {"network_module": NETWORK_MODULES, "optimizer_type": OPTIMIZERS, "lr_scheduler": SCHEDULERS}
_TRACKERS_THAT_UPLOAD = ("wandb", "all")
_SMALLEST = {  # what the trainer divides by, or allocates
    "train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_train_steps": 1,
    "max_train_epochs": 1,
    "network_dim": 1,
}


def apply(given: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[Finding]]:
    """The options that may stay, and a finding for each that may not.

    `given` is what `options.check` accepted.
    """
    kept: dict[str, Any] = {}
    findings: list[Finding] = []
    for name, value in given.items():
        if _says_nothing(value):
            continue  # the kohya_ss GUI writes "" and false for every option that it knows
        problem = _judge(name, value, where)
        if problem is None:
            kept[name] = value
        else:
            findings.append(problem)
    return kept, findings


def _says_nothing(value: Any) -> bool:
    return value in ("", [], [""])


def _judge(name: str, value: Any, where: str) -> Finding | None:
    if name in _REFUSED and value is not False:
        return error(
            "option-refused", where, f"The option {name} is refused: {_REFUSED[name]}.", "Remove it."
        )
    if name in _OVERRIDDEN:
        return note("option-overridden", where, f"The option {name} is not used: {_OVERRIDDEN[name]}.")
    if name in _FIXED_VALUES and value != _FIXED_VALUES[name]:
        message = f"The option {name} is always {_FIXED_VALUES[name]}."
        return note("option-overridden", where, message)
    if name == "log_with":
        if value in _TRACKERS_THAT_UPLOAD:
            message = f"The option log_with is refused: {value} sends the run to a service outside."
            return error(
                "option-refused", where, message, "Remove it; progress and loss are CloudWatch metrics."
            )
        return note(
            "option-overridden",
            where,
            "The option log_with is not used: progress and loss are CloudWatch metrics.",
        )
    if name == "output_name" and ("/" in value or "\\" in value or value.startswith(".")):
        return error(
            "option-refused", where, "The option output_name is refused: it is a path.", "Use a plain name."
        )
    if name in _ALLOWED_NAMES:
        return _name_not_allowed(name, value, where)
    if name in _SMALLEST and value < _SMALLEST[name]:
        message = f"The option {name} is {value}; {_SMALLEST[name]} is the least."
        return error("option-invalid", where, message, f"Give {name} another value, or remove it.")
    return None


def _name_not_allowed(name: str, value: str, where: str) -> Finding | None:
    allowed = _ALLOWED_NAMES[name]
    lowered = {one.lower(): one for one in allowed}
    if value.lower() in lowered:
        return None
    if "." in value and name != "network_module":
        message = f"The option {name} is refused: '{value[:80]}' imports code by name."
        return error("option-refused", where, message, f"Use one of: {', '.join(allowed)}.")
    guess = did_you_mean(value.lower(), lowered)
    message = f"The option {name} does not take '{value[:80]}' here.{guess}"
    return error("option-refused", where, message, f"Use one of: {', '.join(allowed)}.")
