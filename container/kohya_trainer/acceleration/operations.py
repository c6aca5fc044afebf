"""What lies between the products: in one kernel on a GPU, with torch's own operations elsewhere."""

from typing import Any

import torch
from torch.nn import functional

try:
    from kohya_trainer.acceleration.kernels.add_norm import AddNorm
    from kohya_trainer.acceleration.kernels.geglu import Geglu
    from kohya_trainer.acceleration.kernels.group_norm import GROUPS, GroupNorm
except ImportError:  # no Triton: another platform than Linux
    AddNorm = Geglu = GroupNorm = None  # type: ignore[misc, assignment]

# Tests set it, with Triton's interpreter, to run the kernels without a GPU.
WITHOUT_GPU = False


def _fused(tensor: torch.Tensor) -> bool:
    return Geglu is not None and (tensor.is_cuda or WITHOUT_GPU)


def geglu(projected: torch.Tensor) -> torch.Tensor:
    """GEGLU.forward after its projection."""
    if _fused(projected):
        out: torch.Tensor = Geglu.apply(projected)
        return out
    value, gate = projected.chunk(2, dim=-1)
    return value * functional.gelu(gate)


def add_norm(
    hidden: torch.Tensor, update: torch.Tensor | None, norm: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """hidden + update, and its layer norm."""
    if _fused(hidden):
        pair: tuple[torch.Tensor, torch.Tensor] = AddNorm.apply(
            hidden, update, norm.weight, norm.bias, norm.eps
        )
        return pair
    if update is not None:
        hidden = hidden + update
    return hidden, functional.layer_norm(hidden, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def group_norm(x: torch.Tensor, shift: torch.Tensor | None, norm: Any, silu: bool) -> torch.Tensor:
    """The norm of x + shift, an addend of each image's channel that has no gradient; then SiLU, if asked for."""
    if _fused(x) and norm.num_groups == GROUPS:
        out: torch.Tensor = GroupNorm.apply(x, shift, norm.weight, norm.bias, norm.eps, silu)
        return out
    if shift is not None:
        x = x + shift[:, :, None, None]
    normed = functional.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    return functional.silu(normed) if silu else normed
