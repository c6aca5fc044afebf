"""Learning rates and warm-ups with which a run learns nothing, or breaks the model: no trainer says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fine_tuning import options
from fine_tuning.findings import Finding, error, warning
from fine_tuning.learning import RATES
from fine_tuning.run import MANIFEST_NAME
from fine_tuning.trainer_rules.facts import (
    effective_optimizer,
    finds_its_own_rate,
    has_no_schedule,
    rates,
    scheduler,
    sets_its_own_rate,
)

# A hundred times what LoRAs are trained with. Each step of AdamW and Lion changes a weight by about the rate, and a
# LoRA's begin at 0.04 and less (networks/lora.py, kaiming_uniform_ over at least 640 inputs).
_TOO_HIGH = 0.01
# Rates of these are relative to the weights' own size, or of an average of them.
_TOO_HIGH_FOR_OTHERS = 0.1
_STEP_BY_THE_RATE = ("adamw", "lion")


def judge(values: Mapping[str, Any], written: Mapping[str, str], kohya_version: str) -> list[Finding]:
    """Of a resolved configuration; `written`: option → the file in which a user set it."""
    where = next((written[name] for name in (*RATES, "optimizer_type") if name in written), MANIFEST_NAME)
    found = rates(values)
    if found == {0.0} and not _does_without(values, kohya_version):
        message = "Every learning rate is 0, so nothing would be trained."
        return [error("option-invalid", where, message, "Set learning_rate, for example to 1e-4.")]
    largest, optimizer = max(found, default=0.0), effective_optimizer(values)
    if largest < _too_high(values, optimizer):
        return []
    message = (
        f"The learning rate is {largest:g} with {values.get('optimizer_type') or optimizer}, at least a hundred times "
        "what LoRAs are trained with; the result is noise."
    )
    remedy = "Set it to about 1e-4, or optimizer_type to Prodigy, which wants 1."
    return [warning("options-harmful", where, message, remedy)]


def _does_without(values: Mapping[str, Any], kohya_version: str) -> bool:
    """Adafactor's own rate replaces any; but newer networks first leave out weights of no rate, and an optimizer of
    none stops the trainer (networks/lora.py, prepare_optimizer_params).
    """
    keeps_all = options.is_older(kohya_version) or values.get("network_module") == "networks.lora_fa"
    return sets_its_own_rate(values) and keeps_all


def _too_high(values: Mapping[str, Any], optimizer: str) -> float:
    if finds_its_own_rate(values) or sets_its_own_rate(values) or optimizer.startswith("sgd"):
        return float("inf")
    by_the_rate = any(name in optimizer for name in _STEP_BY_THE_RATE) and not has_no_schedule(values)
    return _TOO_HIGH if by_the_rate else _TOO_HIGH_FOR_OTHERS


def judge_warm_up(values: Mapping[str, Any], steps: int, gpus: int, where: str) -> list[Finding]:
    """A warning where the rate is still rising when training ends.

    Args:
        steps: of the optimizer; the schedule moves on once for each GPU in a step (train_util.py, get_scheduler_fix).
        where: the file that sets the warm-up.
    """
    warm_up = values.get("lr_warmup_steps") or 0
    moves = steps * gpus
    if warm_up < max(moves, 1) or has_no_schedule(values) or sets_its_own_rate(values):
        return []
    if scheduler("constant", "adafactor", "piecewise_constant")(values):
        return []  # told as a contradiction, or not read
    share = f"{100 * moves / warm_up:.2g} %"
    message = (
        f"lr_warmup_steps is {warm_up}, but training ends after {moves}: the rate never rises above {share} of what "
        "is set."
    )
    remedy = "Set lr_warmup_steps to a share such as 0.1, remove it, or train for more steps."
    return [warning("options-harmful", where, message, remedy)]
