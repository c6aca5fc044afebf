"""Options that the trainer refuses together, ignores without others, or takes although nobody means them.

Each rule was read in the trainer's own checks: sd-scripts 2e0fcc5 (kohya_ss v25.2.2) and kohya_ss v22.6.2,
library/train_util.py (verify_training_args, get_optimizer, get_scheduler_fix, BaseDataset), train_network.py,
sdxl_train_network.py, library/sdxl_train_util.py, networks/.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fine_tuning.findings import Finding, error, warning
from fine_tuning.option_values import arguments

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """Told where `broken` holds and a user's file sets one of `options`.

    Attributes:
        code: options-contradict (the trainer stops), options-ignored (it does without a word what is not
            meant), options-harmful (it trains, to no good).
    """

    code: str
    options: tuple[str, ...]
    broken: Callable[[Values], Any]
    message: str
    remedy: str


def judge(values: Values, written: Mapping[str, str], kohya_version: str) -> Iterator[Finding]:
    """Findings of a resolved configuration.

    Args:
        written: option → the file in which a user set it. What only a preset says is not the user's fault.
    """
    for rule in RULES + (OLDER_RULES if kohya_version.startswith("v22.") else ()):
        named = [name for name in rule.options if name in written]
        if named and rule.broken(values):
            make = error if rule.code == "options-contradict" else warning
            yield make(rule.code, written[named[0]], rule.message, rule.remedy)


def effective_optimizer(values: Values) -> str:
    """The optimizer's name in small letters (get_optimizer)."""
    if values.get("use_8bit_adam"):
        return "adamw8bit"
    if values.get("use_lion_optimizer"):
        return "lion"
    return str(values.get("optimizer_type") or "AdamW").lower()


def takers(values: Values) -> dict[str, str]:
    """To whom the trainer hands optimizer_args and lr_scheduler_args; where there is no schedule to nobody."""
    optimizer = effective_optimizer(values)
    if _sets_its_own_rate(values) or optimizer.endswith("schedulefree"):
        return {"optimizer_args": optimizer}
    return {"optimizer_args": optimizer, "lr_scheduler_args": str(values.get("lr_scheduler", "constant"))}


def _sets_its_own_rate(values: Values) -> bool:
    """Adafactor with relative_step, its default, replaces learning rates and scheduler by its own."""
    if effective_optimizer(values) != "adafactor":
        return False
    given = {name: _literal(text) for name, text in arguments(values.get("optimizer_args")).items()}
    return bool(given.get("relative_step", True) or given.get("warmup_init", False))


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None  # told as an invalid option


def _finds_its_own_rate(values: Values) -> bool:
    return effective_optimizer(values).startswith(("dadapt", "prodigy"))


def _rates(values: Values) -> set[float]:
    """The learning rates that groups of parameters get."""
    given: list[Any] = [values.get("unet_lr", values.get("learning_rate", 2e-6))]
    if not values.get("network_train_unet_only"):
        encoders = values.get("text_encoder_lr", values.get("learning_rate", 2e-6))
        given += encoders if isinstance(encoders, list) else [encoders]
    return {float(rate) for rate in given if rate is not None}


def _scheduler(*names: str) -> Callable[[Values], bool]:
    return lambda values: values.get("lr_scheduler", "constant") in names


def _without(name: str) -> Callable[[Values], bool]:
    return lambda values: not values.get(name)


def _odd_resolution(values: Values) -> bool:
    sides = str(values.get("resolution", "1024")).split(",")
    return not values.get("enable_bucket") and any(
        side.strip().isdecimal() and int(side) % 32 for side in sides
    )


def _caches_text(values: Values) -> bool:
    return bool(values.get("cache_text_encoder_outputs") or values.get("cache_text_encoder_outputs_to_disk"))


def _caches_latents(values: Values) -> bool:
    return bool(values.get("cache_latents") or values.get("cache_latents_to_disk"))


def _takes_captions_apart(values: Values) -> bool:
    return any(
        values.get(name) for name in ("shuffle_caption", "token_warmup_step", "caption_tag_dropout_rate")
    )


def _conv_dim_differs(values: Values) -> bool:
    given, rank = arguments(values.get("network_args")), values.get("network_dim", 4)
    if values.get("network_module") != "networks.dylora":
        return False
    return given.get("conv_dim", str(rank)) != str(rank) or rank % int(given.get("unit", "1") or 1) != 0


def _stops(options: tuple[str, ...], broken: Callable[[Values], Any], message: str, remedy: str) -> Rule:
    return Rule("options-contradict", options, broken, message, remedy)


def _ignored(option: str, broken: Callable[[Values], Any], why: str, remedy: str = "Remove it.") -> Rule:
    told = lambda values: _says_something(values.get(option)) and broken(values)  # noqa: E731
    return Rule("options-ignored", (option,), told, f"The option {option} does nothing {why}.", remedy)


def _says_something(value: Any) -> bool:
    return value is not None and value is not False


def _harmful(options: tuple[str, ...], broken: Callable[[Values], Any], message: str, remedy: str) -> Rule:
    return Rule("options-harmful", options, broken, message, remedy)


_WARMUP = ("lr_warmup_steps", "lr_scheduler", "optimizer_type", "optimizer_args")

_CONTRADICTIONS = (
    _stops(
        ("adaptive_noise_scale",),
        lambda v: v.get("adaptive_noise_scale") is not None and v.get("noise_offset") is None,
        "adaptive_noise_scale needs noise_offset.",
        "Set noise_offset too, or remove it.",
    ),
    _stops(
        ("scale_v_pred_loss_like_noise_pred",),
        lambda v: v.get("scale_v_pred_loss_like_noise_pred") and not v.get("v_parameterization"),
        "scale_v_pred_loss_like_noise_pred goes with v_parameterization only.",
        "Remove it, or set v_parameterization for a base model of that kind.",
    ),
    _stops(
        ("v_pred_like_loss", "v_parameterization"),
        lambda v: v.get("v_pred_like_loss") and v.get("v_parameterization"),
        "v_pred_like_loss cannot go with v_parameterization.",
        "Remove one of them.",
    ),
    _stops(
        ("use_8bit_adam", "use_lion_optimizer"),
        lambda v: v.get("use_8bit_adam") and v.get("use_lion_optimizer"),
        "use_8bit_adam cannot go with use_lion_optimizer.",
        "Remove both and set optimizer_type.",
    ),
    _stops(
        ("use_8bit_adam", "use_lion_optimizer"),
        lambda v: (v.get("use_8bit_adam") or v.get("use_lion_optimizer")) and v.get("optimizer_type"),
        "use_8bit_adam and use_lion_optimizer cannot go with optimizer_type.",
        "Set optimizer_type alone.",
    ),
    _stops(
        ("fused_backward_pass", "optimizer_type", "gradient_accumulation_steps"),
        lambda v: (
            v.get("fused_backward_pass")
            and (effective_optimizer(v) != "adafactor" or v.get("gradient_accumulation_steps", 1) > 1)
        ),
        "fused_backward_pass works with optimizer_type Adafactor and gradient_accumulation_steps 1 only.",
        "Remove it.",
    ),
    _stops(
        ("full_fp16", "mixed_precision"),
        lambda v: v.get("full_fp16") and v.get("mixed_precision") != "fp16",
        "full_fp16 needs mixed_precision fp16.",
        "Set mixed_precision to fp16, or remove full_fp16.",
    ),
    _stops(
        ("full_bf16", "mixed_precision"),
        lambda v: v.get("full_bf16") and not v.get("full_fp16") and v.get("mixed_precision") != "bf16",
        "full_bf16 needs mixed_precision bf16.",
        "Set mixed_precision to bf16, or remove full_bf16.",
    ),
    _stops(
        ("fp8_base", "fp8_base_unet", "mixed_precision"),
        lambda v: (v.get("fp8_base") or v.get("fp8_base_unet")) and v.get("mixed_precision", "no") == "no",
        "fp8_base and fp8_base_unet need mixed_precision fp16 or bf16.",
        "Set mixed_precision.",
    ),
    _stops(
        _WARMUP,
        lambda v: v.get("lr_warmup_steps") and (_scheduler("constant")(v) or _sets_its_own_rate(v)),
        "lr_warmup_steps cannot go with a constant rate, nor with Adafactor's own (relative_step).",
        "Set lr_scheduler to constant_with_warmup, or remove lr_warmup_steps.",
    ),
    _stops(
        ("lr_scheduler",),
        lambda v: _scheduler("adafactor")(v) and not _sets_its_own_rate(v),
        "lr_scheduler adafactor goes with optimizer_type Adafactor and relative_step=True only.",
        "Set another lr_scheduler.",
    ),
    _stops(
        ("lr_scheduler",),
        lambda v: (
            _scheduler("piecewise_constant")(v) and "step_rules" not in arguments(v.get("lr_scheduler_args"))
        ),
        "lr_scheduler piecewise_constant needs step_rules in lr_scheduler_args.",
        "Add for example \"step_rules='1:100,0.1'\", or set another lr_scheduler.",
    ),
    _stops(
        ("lr_scheduler",),
        lambda v: (
            _scheduler("cosine_with_min_lr")(v)
            and v.get("lr_scheduler_min_lr_ratio") is None
            and "min_lr" not in arguments(v.get("lr_scheduler_args"))
        ),
        "lr_scheduler cosine_with_min_lr needs lr_scheduler_min_lr_ratio.",
        "Set it, for example to 0.1.",
    ),
    _stops(
        ("persistent_data_loader_workers", "max_data_loader_n_workers"),
        lambda v: v.get("persistent_data_loader_workers") and v.get("max_data_loader_n_workers", 8) == 0,
        "persistent_data_loader_workers needs at least one worker (max_data_loader_n_workers).",
        "Set persistent_data_loader_workers to false, or max_data_loader_n_workers to 1 or more.",
    ),
    _stops(
        ("network_train_unet_only", "network_train_text_encoder_only"),
        lambda v: v.get("network_train_unet_only") and v.get("network_train_text_encoder_only"),
        "network_train_unet_only and network_train_text_encoder_only together leave nothing to train.",
        "Set one of them to false.",
    ),
    _stops(
        ("min_timestep", "max_timestep"),
        lambda v: v.get("min_timestep", 0) >= v.get("max_timestep", 1000),
        "min_timestep is not below max_timestep.",
        "Correct one of them.",
    ),
    _stops(
        ("resolution", "enable_bucket"),
        _odd_resolution,
        "Without aspect buckets a resolution must be a multiple of 32; the U-Net cannot halve another one.",
        "Set enable_bucket, or another resolution.",
    ),
    _stops(
        ("network_module", "network_args", "network_dim"),
        _conv_dim_differs,
        "networks.dylora wants conv_dim to be network_dim, and network_dim to be a multiple of unit.",
        "Correct network_args or network_dim.",
    ),
)

_IGNORED = (
    _ignored(
        "dataset_repeats", lambda v: True, "in folders", "Name folders <repeats>_<token>, or set `repeats`."
    ),
    _ignored("clip_skip", lambda v: True, "in SDXL, whose text encoders are read at fixed layers"),
    _ignored(
        "keep_tokens", lambda v: not _takes_captions_apart(v), "where captions are not shuffled or dropped"
    ),
    _ignored("caption_dropout_every_n_epochs", _caches_text, "where text encoder outputs are cached"),
    _ignored("token_warmup_min", _without("token_warmup_step"), "without token_warmup_step"),
    _ignored("text_encoder_lr", lambda v: v.get("network_train_unet_only"), "with network_train_unet_only"),
    _ignored(
        "unet_lr", lambda v: v.get("network_train_text_encoder_only"), "with network_train_text_encoder_only"
    ),
    *(
        _ignored(
            name,
            _sets_its_own_rate,
            "with Adafactor's own rate",
            'Add "relative_step=False" to optimizer_args.',
        )
        for name in ("unet_lr", "text_encoder_lr", "lr_scheduler", "lr_scheduler_args")
    ),
    _ignored("max_train_steps", lambda v: v.get("max_train_epochs"), "beside max_train_epochs"),
    *(
        _ignored(name, _without("enable_bucket"), "without enable_bucket")
        for name in ("min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale")
    ),
    *(
        _ignored(name, lambda v: v.get("bucket_no_upscale"), "with bucket_no_upscale")
        for name in ("min_bucket_reso", "max_bucket_reso")
    ),
    *(
        _ignored(
            name, lambda v: v.get("loss_type", "l2") in ("l1", "l2"), "without loss_type huber or smooth_l1"
        )
        for name in ("huber_schedule", "huber_c", "huber_scale")
    ),
    _ignored("noise_offset_random_strength", _without("noise_offset"), "without noise_offset"),
    _ignored(
        "multires_noise_discount", _without("multires_noise_iterations"), "without multires_noise_iterations"
    ),
    _ignored("ip_noise_gamma_random_strength", _without("ip_noise_gamma"), "without ip_noise_gamma"),
    _ignored(
        "lr_scheduler_num_cycles",
        lambda v: not _scheduler("cosine_with_restarts", "cosine_with_min_lr", "warmup_stable_decay")(v),
        "with this lr_scheduler",
    ),
    _ignored(
        "lr_scheduler_power", lambda v: not _scheduler("polynomial")(v), "without lr_scheduler polynomial"
    ),
    _ignored(
        "lr_scheduler_timescale",
        lambda v: not _scheduler("inverse_sqrt")(v),
        "without lr_scheduler inverse_sqrt",
    ),
    _ignored(
        "lr_scheduler_min_lr_ratio",
        lambda v: not _scheduler("cosine_with_min_lr", "warmup_stable_decay")(v),
        "with this lr_scheduler",
    ),
    _ignored(
        "lr_decay_steps",
        lambda v: not _scheduler("warmup_stable_decay")(v),
        "without lr_scheduler warmup_stable_decay",
    ),
    _ignored(
        "cpu_offload_checkpointing", _without("gradient_checkpointing"), "without gradient_checkpointing"
    ),
    _ignored("dynamo_backend", _without("torch_compile"), "without torch_compile"),
    _ignored("base_weights_multiplier", lambda v: True, "without base_weights"),
    _ignored("vae_batch_size", lambda v: not _caches_latents(v), "without cache_latents"),
    _ignored(
        "face_crop_aug_range",
        lambda v: v.get("enable_bucket") or _caches_latents(v),
        "with enable_bucket or cache_latents",
    ),
    _ignored("masked_loss", _without("alpha_mask"), "without alpha_mask"),
    *(
        _ignored(name, _without("validation_split"), "without validation_split")
        for name in (
            "validate_every_n_epochs",
            "validate_every_n_steps",
            "max_validation_steps",
            "validation_seed",
        )
    ),
    *(
        _ignored(name, lambda v: True, "without deepspeed")
        for name in (
            *("zero_stage", "zero3_init_flag", "zero3_save_16bit_model", "offload_optimizer_device"),
            *("offload_param_device", "fp16_master_weights_and_gradients"),
        )
    ),
    *(
        _ignored(name, lambda v: True, "here: progress and loss are CloudWatch metrics")
        for name in ("log_prefix", "log_tracker_name", "wandb_run_name", "log_config")
    ),
)

_HARMFUL = (
    _harmful(
        ("zero_terminal_snr",),
        lambda v: v.get("zero_terminal_snr") and not v.get("v_parameterization"),
        "zero_terminal_snr without v_parameterization: the trainer calls the result unexpected.",
        "Remove it, or set v_parameterization for a base model of that kind.",
    ),
    _harmful(
        ("optimizer_type", "learning_rate", "unet_lr"),
        lambda v: _finds_its_own_rate(v) and max(_rates(v), default=0.0) <= 0.1,
        "D-Adaptation and Prodigy multiply the learning rate that they find with the one that is set.",
        "Set learning_rate to 1.0.",
    ),
    _harmful(
        ("optimizer_type", "unet_lr", "text_encoder_lr"),
        lambda v: _finds_its_own_rate(v) and len(_rates(v)) > 1,
        "D-Adaptation and Prodigy know one learning rate; that of the first group counts.",
        "Set learning_rate alone.",
    ),
    _harmful(
        ("mixed_precision", "no_half_vae"),
        lambda v: v.get("mixed_precision") == "fp16" and not v.get("no_half_vae"),
        "SDXL's own VAE gives NaN in half precision, and the trainer stops while it caches latents.",
        "Set no_half_vae to true, unless the base model brings a VAE that was repaired for it.",
    ),
    _harmful(
        ("sdpa", "xformers", "mem_eff_attn"),
        lambda v: not any(v.get(name) for name in ("sdpa", "xformers", "mem_eff_attn")),
        "Without sdpa, xformers or mem_eff_attn attention takes several times the memory and the time.",
        "Set sdpa to true.",
    ),
)

RULES: tuple[Rule, ...] = (*_CONTRADICTIONS, *_IGNORED, *_HARMFUL)
# sdxl_train_util.verify_sdxl_training_args, until the scripts became a submodule.
OLDER_RULES: tuple[Rule, ...] = (
    _stops(
        ("weighted_captions",),
        lambda v: v.get("weighted_captions"),
        "This version refuses weighted_captions for SDXL.",
        "Remove it, or deploy a newer KohyaVersion.",
    ),
)
