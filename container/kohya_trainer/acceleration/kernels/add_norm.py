"""A residual's sum and its layer norm."""

# ruff: noqa: N803, constants of a kernel are written in capitals
from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def _add_norm(
    hidden, update, weight, bias, total, normed, means, inverses, width, epsilon,
    ADDS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, SIZE)
    inside = column < width
    x = tl.load(hidden + row * width + column, mask=inside, other=0.0)
    if ADDS:
        x = (
            x.to(tl.float32) + tl.load(update + row * width + column, mask=inside, other=0.0).to(tl.float32)
        ).to(x.dtype)
        tl.store(total + row * width + column, x, mask=inside)
    x = x.to(tl.float32)
    mean = tl.sum(x, 0) / width
    centred = tl.where(inside, x - mean, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / width + epsilon)
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + row * width + column, centred * inverse * scale + shift, mask=inside)
    tl.store(means + row, mean)
    tl.store(inverses + row, inverse)


@triton.jit
def _add_norm_backward(
    total, weight, means, inverses, of_total, of_normed, out, width,
    ADDS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, SIZE)
    inside = column < width
    inverse = tl.load(inverses + row)
    x = tl.load(total + row * width + column, mask=inside, other=0.0).to(tl.float32)
    given = tl.load(of_normed + row * width + column, mask=inside, other=0.0).to(tl.float32)
    given = given * tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    standard = tl.where(inside, (x - tl.load(means + row)) * inverse, 0.0)
    result = inverse * (given - tl.sum(given, 0) / width - standard * (tl.sum(given * standard, 0) / width))
    if ADDS:
        result += tl.load(of_total + row * width + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, result, mask=inside)


class AddNorm(torch.autograd.Function):
    """(hidden, update) → their sum and its layer norm; without an update the sum is `hidden`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        update: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor,
        epsilon: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = hidden.contiguous()
        width = hidden.shape[-1]
        rows = hidden.numel() // width
        total = hidden if update is None else torch.empty_like(hidden)
        normed = torch.empty_like(hidden)
        means, inverses = hidden.new_empty((2, rows), dtype=torch.float32)
        other = hidden if update is None else update.contiguous()
        size = triton.next_power_of_2(width)
        _add_norm[(rows,)](
            hidden, other, weight, bias, total, normed, means, inverses, width, epsilon,
            ADDS=update is not None, SIZE=size,
        )  # fmt: skip
        ctx.save_for_backward(total, weight, means, inverses)
        ctx.adds, ctx.size = update is not None, size
        if update is None:
            total = hidden.view_as(hidden)
        return total, normed

    @staticmethod
    def backward(ctx: Any, of_total: torch.Tensor | None, of_normed: torch.Tensor) -> tuple[Any, ...]:
        total, weight, means, inverses = ctx.saved_tensors
        out, of_normed = torch.empty_like(total), of_normed.contiguous()
        has_total = of_total is not None
        carried = of_normed if of_total is None else of_total.contiguous()
        _add_norm_backward[(means.numel(),)](
            total, weight, means, inverses, carried, of_normed, out,
            total.shape[-1], ADDS=has_total, SIZE=ctx.size,
        )  # fmt: skip
        return out, out if ctx.adds else None, None, None, None
