"""The learning rate at a step, for the schedules that are formulas of the step (diffusers'
optimization.py).
"""

import math
from collections.abc import Mapping
from typing import Any

ADAPTIVE = ("prodigy", "dadapt", "adafactor", "schedulefree")


def learning_rate(options: Mapping[str, Any], step: int, total: int) -> float | None:
    """The rate after `step` of `total` steps; None when optimizer or schedule decide it while they run."""
    base = options.get("unet_lr", options.get("learning_rate"))
    optimizer = str(options.get("optimizer_type", "")).lower()
    if base is None or any(name in optimizer for name in ADAPTIVE):
        return None
    factor = _factor(str(options.get("lr_scheduler", "constant")), options, step, total)
    return None if factor is None else float(base) * factor


def _factor(schedule: str, options: Mapping[str, Any], step: int, total: int) -> float | None:
    warmup = float(options.get("lr_warmup_steps", 0))
    warmup = warmup * total if 0 < warmup < 1 else warmup  # Kohya reads a fraction as a share of all steps
    if schedule == "constant":
        return 1.0
    if step < warmup:
        return step / warmup
    done = (step - warmup) / max(1.0, total - warmup)
    if schedule == "constant_with_warmup":
        return 1.0
    if schedule == "linear":
        return max(0.0, 1.0 - done)
    if schedule == "cosine":
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * done)))
    if schedule == "cosine_with_restarts":
        cycles = int(options.get("lr_scheduler_num_cycles", 1))
        return 0.0 if done >= 1.0 else max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((cycles * done) % 1.0))))
    return None
