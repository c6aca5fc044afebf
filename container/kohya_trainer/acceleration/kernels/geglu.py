"""The feed-forward network's gate: value · gelu(gate)."""

# ruff: noqa: N803, constants of a kernel are written in capitals
from typing import Any

import torch
import triton
import triton.language as tl

_INVERSE_ROOT_2 = tl.constexpr(0.7071067811865476)
_INVERSE_ROOT_2_PI = tl.constexpr(0.3989422804014327)


@triton.jit
def _geglu(projected, out, width, SIZE: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = column < width
    value = tl.load(projected + row * 2 * width + column, mask=inside).to(tl.float32)
    gate = tl.load(projected + row * 2 * width + width + column, mask=inside).to(tl.float32)
    gelu = 0.5 * gate * (1.0 + tl.erf(gate * _INVERSE_ROOT_2))
    tl.store(out + row * width + column, value * gelu, mask=inside)


@triton.jit
def _geglu_backward(projected, gradient, out, width, SIZE: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = column < width
    value = tl.load(projected + row * 2 * width + column, mask=inside).to(tl.float32)
    gate = tl.load(projected + row * 2 * width + width + column, mask=inside).to(tl.float32)
    given = tl.load(gradient + row * width + column, mask=inside).to(tl.float32)
    below = 0.5 * (1.0 + tl.erf(gate * _INVERSE_ROOT_2))
    slope = below + gate * _INVERSE_ROOT_2_PI * tl.exp(-0.5 * gate * gate)
    tl.store(out + row * 2 * width + column, given * gate * below, mask=inside)
    tl.store(out + row * 2 * width + width + column, given * value * slope, mask=inside)


class Geglu(torch.autograd.Function):
    """value · gelu(gate) of (…, value and gate) → (…, half as wide)."""

    @staticmethod
    def forward(ctx: Any, projected: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(projected)
        width = projected.shape[-1] // 2
        out = projected.new_empty((*projected.shape[:-1], width))
        _geglu[(out.numel() // width, triton.cdiv(width, 1024))](projected, out, width, SIZE=1024)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (projected,) = ctx.saved_tensors
        width = projected.shape[-1] // 2
        gradient, out = gradient.contiguous(), torch.empty_like(projected)
        grid = (gradient.numel() // width, triton.cdiv(width, 1024))
        _geglu_backward[grid](projected, gradient, out, width, SIZE=1024)
        return out
