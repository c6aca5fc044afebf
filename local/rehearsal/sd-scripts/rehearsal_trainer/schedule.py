"""Learning-rate schedules of diffusers' optimization.py that are formulas of the step."""

import math
from argparse import Namespace

from rehearsal_trainer.log import info


def rate(args: Namespace, step: int, total: int) -> float:
    """The learning rate of the step after `step` of `total` steps, as announced when the training began."""
    base = float(args.unet_lr if args.unet_lr is not None else args.learning_rate)
    warmup = float(args.lr_warmup_steps or 0)
    warmup = warmup * total if 0 < warmup < 1 else warmup
    if args.lr_scheduler == "constant":
        return base
    if step < warmup:
        return base * step / warmup
    done = (step - warmup) / max(1.0, total - warmup)
    if args.lr_scheduler == "linear":
        return base * max(0.0, 1 - done)
    if args.lr_scheduler == "cosine":
        return base * max(0.0, 0.5 * (1 + math.cos(math.pi * done)))
    if args.lr_scheduler == "cosine_with_restarts":
        cycles = int(args.lr_scheduler_num_cycles or 1)
        return 0.0 if done >= 1 else base * max(0.0, 0.5 * (1 + math.cos(math.pi * ((cycles * done) % 1.0))))
    return base


def announce(args: Namespace) -> None:
    """Says what the rehearsal does otherwise than it was told."""
    if str(args.optimizer_type or "AdamW").lower() not in ("adamw", "adamw8bit"):
        info(f"the rehearsal optimises with AdamW, not with {args.optimizer_type}", "WARNING")
    if args.lr_scheduler not in (
        "constant",
        "constant_with_warmup",
        "linear",
        "cosine",
        "cosine_with_restarts",
    ):
        info(f"the rehearsal keeps the learning rate constant instead of {args.lr_scheduler}", "WARNING")
