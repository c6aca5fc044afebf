"""What a resolved configuration comes to in the trainer, where several options decide together."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from fine_tuning.option_values import arguments, block_weights

Values = Mapping[str, Any]


def effective_optimizer(values: Values) -> str:
    """The optimizer's name in small letters (get_optimizer)."""
    if values.get("use_8bit_adam"):
        return "adamw8bit"
    if values.get("use_lion_optimizer"):
        return "lion"
    return str(values.get("optimizer_type") or "AdamW").lower()


def takers(values: Values) -> dict[str, str]:
    """To whom the trainer hands optimizer_args and, where there is a scheduler to choose, lr_scheduler_args."""
    optimizer = effective_optimizer(values)
    if sets_its_own_rate(values) or has_no_schedule(values):
        return {"optimizer_args": optimizer}
    return {"optimizer_args": optimizer, "lr_scheduler_args": str(values.get("lr_scheduler", "constant"))}


def sets_its_own_rate(values: Values) -> bool:
    """Adafactor with relative_step, its default, replaces learning rates and scheduler by its own."""
    if effective_optimizer(values) != "adafactor":
        return False
    given = {name: _literal(text) for name, text in arguments(values.get("optimizer_args")).items()}
    return bool(given.get("relative_step", True) or given.get("warmup_init", False))


def has_no_schedule(values: Values) -> bool:
    """Its optimizer is made to need none: the trainer puts a scheduler in its place that does nothing."""
    return effective_optimizer(values).endswith("schedulefree")


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None  # told as an invalid option


def finds_its_own_rate(values: Values) -> bool:
    return effective_optimizer(values).startswith(("dadapt", "prodigy"))


def knows_one_rate(values: Values) -> bool:
    """Its optimizer stops at groups of different rates other than 0 (prodigyopt 1.1.2, dadaptation 3.2)."""
    return effective_optimizer(values) in _ONE_RATE


_ONE_RATE = ("prodigy", "dadaptation", "dadaptadampreprint", "dadaptadam", "dadaptlion", "dadaptsgd")


def first(value: Any) -> Any:
    """Of a list its first: networks for SDXL know one rate for both encoders (train_network.py, text_encoder_lr)."""
    return value[0] if isinstance(value, list) else value


def rates(values: Values) -> set[float]:
    """The learning rates that groups of parameters get, before network_args multiply them."""
    given: list[Any] = []
    if not values.get("network_train_text_encoder_only"):
        given.append(values.get("unet_lr", values.get("learning_rate", 2e-6)))
    if not values.get("network_train_unet_only"):
        given.append(first(values.get("text_encoder_lr", values.get("learning_rate", 2e-6))))
    return {float(rate) for rate in given if rate is not None}


def learning_rates(values: Values) -> set[float]:
    """Those with which anything learns."""
    return rates(values) - {0.0}


def multiplies_rates(values: Values) -> bool:
    """Whether network_args give some weights another rate than others (prepare_optimizer_params)."""
    given = arguments(values.get("network_args"))
    ratios = {given[name] for name in given if name.startswith("loraplus_")}
    if values.get("network_module", "networks.lora") != "networks.lora_fa" and any(
        _literal(ratio) not in (0, 1) for ratio in ratios
    ):
        return True
    return len(set(block_weights(given)) - {0.0}) > 1


def scheduler(*names: str) -> Callable[[Values], bool]:
    return lambda values: not has_no_schedule(values) and values.get("lr_scheduler", "constant") in names


def without(name: str) -> Callable[[Values], bool]:
    return lambda values: not values.get(name)


def odd_resolution(values: Values) -> bool:
    sides = str(values.get("resolution", "1024")).split(",")
    return not values.get("enable_bucket") and any(
        side.strip().isdecimal() and int(side) % 32 for side in sides
    )


def caches_text(values: Values) -> bool:
    return bool(values.get("cache_text_encoder_outputs") or values.get("cache_text_encoder_outputs_to_disk"))


def caches_latents(values: Values) -> bool:
    return bool(values.get("cache_latents") or values.get("cache_latents_to_disk"))


def takes_captions_apart(values: Values) -> bool:
    return any(
        values.get(name) for name in ("shuffle_caption", "token_warmup_step", "caption_tag_dropout_rate")
    )


def conv_dim_differs(values: Values) -> bool:
    given, rank = arguments(values.get("network_args")), values.get("network_dim", 4)
    if values.get("network_module") != "networks.dylora":
        return False
    return given.get("conv_dim", str(rank)) != str(rank) or rank % int(given.get("unit", "1") or 1) != 0
