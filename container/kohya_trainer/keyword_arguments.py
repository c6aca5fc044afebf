"""What optimizer_args and lr_scheduler_args may name: the keywords of the class or function that the trainer hands them
to, less those that it gives itself. With any other the trainer ends after it has loaded and cached everything.

Read in library/train_util.py, get_optimizer and get_scheduler_fix (sd-scripts 2e0fcc5 and kohya_ss v22.6.2).
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

# The trainer's name → where the class is.
OPTIMIZERS = {
    "AdamW": "torch.optim.AdamW",
    "SGDNesterov": "torch.optim.SGD",
    "Lion": "lion_pytorch.Lion",
    **{
        name: f"bitsandbytes.optim.{name}"
        for name in (
            "AdamW8bit",
            "Lion8bit",
            "PagedAdamW",
            "PagedAdamW8bit",
            "PagedAdamW32bit",
            "PagedLion8bit",
        )
    },
    "SGDNesterov8bit": "bitsandbytes.optim.SGD8bit",
    "DAdaptation": "dadaptation.experimental.DAdaptAdamPreprint",
    "DAdaptAdamPreprint": "dadaptation.experimental.DAdaptAdamPreprint",
    "DAdaptAdanIP": "dadaptation.experimental.DAdaptAdanIP",
    **{
        name: f"dadaptation.{name}"
        for name in ("DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptLion", "DAdaptSGD")
    },
    "Prodigy": "prodigyopt.Prodigy",
    "Adafactor": "transformers.optimization.Adafactor",
    **{
        name: f"schedulefree.{name}" for name in ("AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree")
    },
}
_GIVEN = {"self", "params", "lr", "optimizer", "num_warmup_steps", "num_training_steps"}
_GIVEN_BESIDES: Mapping[str, tuple[str, ...]] = {
    "SGDNesterov": ("nesterov",),
    "SGDNesterov8bit": ("nesterov",),
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("power",),
    "inverse_sqrt": ("timescale",),
    "cosine_with_min_lr": ("num_cycles", "min_lr_rate"),
    "warmup_stable_decay": ("num_stable_steps", "num_decay_steps", "num_cycles", "min_lr_ratio"),
}
# Those that `lr_scheduler` may name, but for adafactor's, which is handed nothing.
SCHEDULERS = (
    *("linear", "cosine", "polynomial", "constant", "constant_with_warmup", "piecewise_constant"),
    *_GIVEN_BESIDES,
)


def describe_arguments(train_util: Any) -> dict[str, dict[str, list[str]]]:
    """{"optimizer_args" and "lr_scheduler_args": {name: keywords}}, of what this version of the trainer has.

    train_util: the trainer's own module, which knows whose schedulers it uses.
    """
    kinds = [getattr(train_util, f"{whose}TYPE_TO_SCHEDULER_FUNCTION", {}) for whose in ("DIFFUSERS_", "")]
    schedulers = {kind.value: function for functions in kinds for kind, function in functions.items()}
    optimizers = {name: found for name, place in OPTIMIZERS.items() if (found := _found(place))}
    return {
        "optimizer_args": {name: _keywords(name, found) for name, found in sorted(optimizers.items())},
        "lr_scheduler_args": {
            name: _keywords(name, schedulers[name]) for name in sorted(set(SCHEDULERS) & set(schedulers))
        },
    }


def _found(place: str) -> Callable[..., Any] | None:
    """None where this version has no such package or class."""
    module, _, name = place.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def _keywords(name: str, function: Callable[..., Any]) -> list[str]:
    given = _GIVEN | set(_GIVEN_BESIDES.get(name, ()))
    return sorted(set(inspect.signature(function).parameters) - given)
