"""Values that have the right type and yet cannot be worked with: ranges, and lists of `name=value`.

Read in sd-scripts (library/train_util.py, train_network.py, networks/lora.py): the trainer divides by them,
allocates them, or takes the lists apart with `split("=")` and `ast.literal_eval`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fine_tuning import options
from fine_tuning.buckets import LARGEST_SIDE
from fine_tuning.findings import Finding, error, note, warning
from fine_tuning.nearest import did_you_mean

_SEEDS = (0, 2**32 - 1)  # numpy's
_LARGEST_ITEM = 1000  # characters of one name=value

# option → (smallest, largest); None: no limit
_RANGES: Mapping[str, tuple[float | None, float | None]] = {
    **dict.fromkeys(
        (
            *("gradient_accumulation_steps", "vae_batch_size", "lr_scheduler_num_cycles"),
            *(
                "save_every_n_epochs",
                "save_every_n_steps",
                "validate_every_n_epochs",
                "validate_every_n_steps",
            ),
            *("max_validation_steps", "token_warmup_min", "clip_skip", "lr_scheduler_timescale"),
        ),
        (1, None),
    ),
    **dict.fromkeys(
        (
            *("max_data_loader_n_workers", "keep_tokens", "learning_rate", "unet_lr", "text_encoder_lr"),
            *(
                "lr_warmup_steps",
                "lr_decay_steps",
                "max_grad_norm",
                "network_alpha",
                "caption_dropout_every_n_epochs",
            ),
            *("token_warmup_step", "multires_noise_iterations", "min_snr_gamma", "save_last_n_epochs"),
            *("save_last_n_epochs_state", "save_last_n_steps", "save_last_n_steps_state", "ddp_timeout"),
        ),
        (0, None),
    ),
    **dict.fromkeys(
        (
            *("caption_dropout_rate", "caption_tag_dropout_rate", "lr_scheduler_min_lr_ratio"),
            *("multires_noise_discount", "ip_noise_gamma", "noise_offset"),
        ),
        (0, 1),
    ),
    **dict.fromkeys(("network_dropout", "validation_split"), (0, 0.99)),
    **dict.fromkeys(("seed", "validation_seed"), _SEEDS),
    # Beyond any GPU; the plan goes through every one of an epoch's buckets.
    **dict.fromkeys(("min_bucket_reso", "max_bucket_reso", "bucket_reso_steps"), (1, LARGEST_SIDE)),
    "train_batch_size": (1, 4096),
    "network_dim": (1, 4096),
    **dict.fromkeys(("max_train_steps", "max_train_epochs"), (1, 10**9)),
    "huber_c": (1e-9, None),  # its logarithm is taken
    "min_timestep": (0, 999),
    "max_timestep": (1, 1000),
}
# To people 0 means "never"; the trainer computes `step % 0`.
_ZERO_IS_OFF = (
    *("save_every_n_epochs", "save_every_n_steps", "validate_every_n_epochs", "validate_every_n_steps"),
    *("sample_every_n_epochs", "sample_every_n_steps", "clip_skip"),
)
_ARGUMENT_LISTS = ("optimizer_args", "lr_scheduler_args", "network_args")
# networks/lora.py, get_block_dims_and_alphas and get_block_lr_weight
_SDXL_BLOCKS = 23
_SDXL_DOWN_OR_UP, _SDXL_MIDDLE = 9, 3
_CURVES = ("cosine", "sine", "linear", "reverse_linear", "zeros")

_Parse = Callable[[str], Any]


def _blocks(parse: _Parse) -> _Parse:
    def values(text: str) -> list[Any]:
        parsed = [parse(part) for part in text.split(",")]
        if len(parsed) != _SDXL_BLOCKS:
            raise ValueError(f"needs {_SDXL_BLOCKS} numbers for SDXL, not {len(parsed)}")
        return parsed

    return values


def _weights(most: int) -> Callable[[str], list[float]]:
    """Fewer are filled up with 1, and nothing between commas is 0; of more the trainer forgets some or stops."""

    def values(text: str) -> list[float]:
        parsed = [float(part or 0) for part in text.split(",")]
        if len(parsed) > most:
            raise ValueError(f"takes {most} numbers for SDXL, not {len(parsed)}")
        return parsed + [1.0] * (most - len(parsed))

    return values


def _down_or_up(text: str) -> list[float]:
    if "," in text:
        return _weights(_SDXL_DOWN_OR_UP)(text)
    curve, _, base = text.partition("+")
    if curve not in _CURVES:
        raise ValueError(f"takes {_SDXL_DOWN_OR_UP} numbers for SDXL, or one of {', '.join(_CURVES)}")
    flat = [float(base or 0)] * _SDXL_DOWN_OR_UP
    return flat if curve == "zeros" else [*flat[1:], flat[0] + 1]  # the ends of its curve


def block_weights(given: Mapping[str, str]) -> list[float]:
    """What network_args multiply the rates of the U-Net's blocks with; of a curve its least and its most."""
    weights = [name for name in _BLOCK_WEIGHTS if name in given]
    if not weights:
        return []
    try:
        least = float(given.get("block_lr_zero_threshold", "0"))
        found = [weight for name in weights for weight in _LORA_ARGUMENTS[name](given[name])]
    except ValueError:
        return []  # told as an invalid option
    return [w if w > least else 0.0 for w in found] + [1.0] * (len(weights) < len(_BLOCK_WEIGHTS))


def _no_blocks(text: str) -> None:
    raise ValueError("this network knows the blocks of older models, and finds none in SDXL")


_BLOCK_WEIGHTS = ("down_lr_weight", "mid_lr_weight", "up_lr_weight")
_LORA_ARGUMENTS: Mapping[str, _Parse] = {
    "conv_dim": int,
    "conv_alpha": float,
    "block_dims": _blocks(int),
    "conv_block_dims": _blocks(int),
    "block_alphas": _blocks(float),
    "conv_block_alphas": _blocks(float),
    **dict.fromkeys(("down_lr_weight", "up_lr_weight"), _down_or_up),
    "mid_lr_weight": _weights(_SDXL_MIDDLE),
    **dict.fromkeys(("block_lr_zero_threshold", "rank_dropout", "module_dropout"), float),
    **dict.fromkeys(("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio"), float),
}
# networks.lora_fa, and networks.lora before its scripts became a submodule: twelve blocks down and up, found by names
# that SDXL's modules have not, and no LoRA+.
_WITHOUT_BLOCKS: Mapping[str, _Parse] = {
    name: _no_blocks if "block" in name or name in _BLOCK_WEIGHTS else parse
    for name, parse in _LORA_ARGUMENTS.items()
    if not name.startswith("loraplus")
}
_NETWORK_ARGUMENTS: Mapping[str, Mapping[str, _Parse]] = {
    "networks.lora": _LORA_ARGUMENTS,
    "networks.lora_fa": _WITHOUT_BLOCKS,
    "networks.dylora": {
        "unit": int,
        **{
            name: _LORA_ARGUMENTS[name]
            for name in _LORA_ARGUMENTS
            if name.startswith(("conv_dim", "conv_alpha", "lora"))
        },
    },
}


def check(given: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[Finding]]:
    """The options whose values can be worked with, and a finding for each other one."""
    kept: dict[str, Any] = {}
    findings: list[Finding] = []
    for name, value in given.items():
        if name in _ZERO_IS_OFF and value == 0:
            message = f"The option {name} is 0, which the trainer divides by; it is left out."
            findings.append(note("option-overridden", where, message, "Leave it out; that means never."))
        elif problem := _problem(name, value):
            message = f"The option {name} {problem}."
            remedy = f"Give {name} another value, or remove it."
            findings.append(error("option-invalid", where, message, remedy))
        else:
            kept[name] = value
    return kept, findings


def arguments(items: Any) -> dict[str, str]:
    """`["a=1", "b=2"]` → {"a": "1", "b": "2"}, of a list that was checked."""
    return {name: value for name, _, value in (str(item).partition("=") for item in items or ())}


def network_arguments(values: Mapping[str, Any], where: str, kohya_version: str) -> list[Finding]:
    """Arguments of the network's module: those that it does not know do nothing."""
    module = values.get("network_module", "networks.lora")
    known = _NETWORK_ARGUMENTS.get(module, _LORA_ARGUMENTS)
    if module == "networks.lora" and options.is_older(kohya_version):
        known = _WITHOUT_BLOCKS
    findings: list[Finding] = []
    given = arguments(values.get("network_args"))
    for name, text in given.items():
        if name not in known:
            guess = did_you_mean(name, known)
            message = f"{module} has no argument '{name[:80]}'; in network_args it does nothing.{guess}"
            findings.append(warning("options-ignored", where, message, f"Use one of: {', '.join(known)}."))
            continue
        try:
            known[name](text)
        except ValueError as cause:
            message = f"The argument {name} in network_args is '{text[:80]}': {cause}."
            findings.append(error("option-invalid", where, message, f"Give {name} another value."))
    return findings


# What the trainer hands over itself, and the option that it takes it from.
_HANDED_OVER = {
    "lr": "learning_rate",
    "num_warmup_steps": "lr_warmup_steps",
    "num_cycles": "lr_scheduler_num_cycles",
    "power": "lr_scheduler_power",
    "timescale": "lr_scheduler_timescale",
}


def keyword_arguments(
    option: str, taker: str, keywords: Sequence[str], values: Mapping[str, Any], where: str
) -> list[Finding]:
    """Those in optimizer_args or lr_scheduler_args that the optimizer or scheduler does not take: the trainer stops at
    them, once it has loaded and cached everything.
    """
    findings: list[Finding] = []
    for name in arguments(values.get(option)):
        if name in keywords:
            continue
        remedy = f"{taker} takes: {', '.join(keywords)}."
        if name in _HANDED_OVER:
            remedy = f"Remove it and set {_HANDED_OVER[name]} instead."
        message = (
            f"{taker} takes no argument '{name[:80]}', which {option} names.{did_you_mean(name, keywords)}"
        )
        findings.append(error("option-invalid", where, message, remedy))
    return findings


def _problem(name: str, value: Any) -> str | None:
    if name in _ARGUMENT_LISTS:
        return next(
            (problem for item in value if (problem := _item_problem(str(item), name != "network_args"))), None
        )
    if name == "resolution" and any(len(side.strip()) > 5 for side in value.split(",")):
        return f"is '{value[:80]}', not one or two numbers of pixels"
    if name == "face_crop_aug_range":
        return _crop_range_problem(value)
    low, high = _RANGES.get(name, (None, None))
    for number in value if isinstance(value, list) else [value]:
        if low is not None and number < low:
            return f"is {number}; {low} is the least"
        if high is not None and number > high:
            return f"is {number}; {high} is the most"
    return None


def _item_problem(item: str, is_python: bool) -> str | None:
    name, mark, value = item.partition("=")
    if not mark or "=" in value or not name.isidentifier() or len(item) > _LARGEST_ITEM:
        return f"holds '{item[:80]}', which is not of the form name=value"
    if not is_python:
        return None
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return f"holds '{item[:80]}', whose value is no Python literal (quote text: name='value')"
    return None


def _crop_range_problem(value: str) -> str | None:
    try:
        low, high = (float(part) for part in value.split(","))
    except ValueError:
        return f"is '{value[:80]}', not two numbers such as 2.0,4.0"
    return None if 0 < low <= high else f"is '{value[:80]}'; the first number is the smaller one, above 0"
