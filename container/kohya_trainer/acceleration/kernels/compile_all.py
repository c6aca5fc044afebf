"""All kernels, compiled before the first step asks for them."""

from typing import Any

import torch

from kohya_trainer.acceleration.kernels.add_norm import AddNorm
from kohya_trainer.acceleration.kernels.geglu import Geglu
from kohya_trainer.acceleration.kernels.group_norm import GroupNorm


def compile_all(dtype: torch.dtype, device: Any) -> None:
    """Every kernel as the U-Net uses it: Triton compiles anew for other types, and for sizes that no 16 divides."""
    rows = 64

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=device, requires_grad=True)

    Geglu.apply(zeros(rows, 2560)).sum().backward()
    for width in (640, 1280):
        for update in (None, zeros(rows, width)):
            pair = AddNorm.apply(zeros(rows, width), update, zeros(width), zeros(width), 1e-5)
            sum(part.sum() for part in pair).backward()
    for silu in (True, False):
        image = zeros(1, 320, 8, 8).contiguous(memory_format=torch.channels_last)
        GroupNorm.apply(image, None, zeros(320), zeros(320), 1e-5, silu).sum().backward()
