"""A group norm with the shift before it and the activation behind it; images lie in memory channels last, seen here as
(images, pixels, channels).
"""

# ruff: noqa: N803, constants of a kernel are written in capitals
from typing import Any

import torch
import triton
import triton.language as tl

GROUPS = 32


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _channel_sums(
    x, shifts, sums, pixels, channels, CHUNK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Of each channel over a chunk of one image's pixels: x + shift and its square."""
    image, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    shift = tl.load(shifts + image * channels + column, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros([COLUMNS], tl.float32)
    squares = tl.zeros([COLUMNS], tl.float32)
    first = part * CHUNK
    for start in range(0, CHUNK, ROWS):
        row = first + start + tl.arange(0, ROWS)
        both = ((row < pixels) & (row < first + CHUNK))[:, None] & inside[None, :]
        at = (image * pixels + row)[:, None] * channels + column[None, :]
        value = tl.load(x + at, mask=both, other=0.0).to(tl.float32) + shift[None, :]
        value = tl.where(both, value, 0.0)
        total += tl.sum(value, 0)
        squares += tl.sum(value * value, 0)
    to = sums + ((image * tl.num_programs(1) + part) * 2) * channels + column
    tl.store(to, total, mask=inside)
    tl.store(to + channels, squares, mask=inside)


@triton.jit
def _scaled(
    x, scales, shifts, out, pixels, channels, SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    image = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    both = (row < pixels)[:, None] & inside[None, :]
    at = (image * pixels + row)[:, None] * channels + column[None, :]
    scale = tl.load(scales + image * channels + column, mask=inside, other=0.0)
    shift = tl.load(shifts + image * channels + column, mask=inside, other=0.0)
    z = tl.load(x + at, mask=both, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    if SILU:
        z = z * _sigmoid(z)
    tl.store(out + at, z, mask=both)


@triton.jit
def _gradient_of_z(x, gradient, scale, shift, at, both, SILU: tl.constexpr):
    x = tl.load(x + at, mask=both, other=0.0).to(tl.float32)
    given = tl.load(gradient + at, mask=both, other=0.0).to(tl.float32)
    if SILU:
        z = x * scale[None, :] + shift[None, :]
        sigmoid = _sigmoid(z)
        given = given * sigmoid * (1.0 + z * (1.0 - sigmoid))
    return x, given


@triton.jit
def _gradient_sums(
    x, gradient, scales, shifts, sums, pixels, channels, CHUNK: tl.constexpr,
    SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of each channel over a chunk of one image's pixels: the gradient before the activation, and it times x."""
    image, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    scale = tl.load(scales + image * channels + column, mask=inside, other=0.0)
    shift = tl.load(shifts + image * channels + column, mask=inside, other=0.0)
    total = tl.zeros([COLUMNS], tl.float32)
    products = tl.zeros([COLUMNS], tl.float32)
    first = part * CHUNK
    for start in range(0, CHUNK, ROWS):
        row = first + start + tl.arange(0, ROWS)
        both = ((row < pixels) & (row < first + CHUNK))[:, None] & inside[None, :]
        at = (image * pixels + row)[:, None] * channels + column[None, :]
        value, given = _gradient_of_z(x, gradient, scale, shift, at, both, SILU)
        total += tl.sum(given, 0)
        products += tl.sum(given * value, 0)
    to = sums + ((image * tl.num_programs(1) + part) * 2) * channels + column
    tl.store(to, total, mask=inside)
    tl.store(to + channels, products, mask=inside)


@triton.jit
def _gradient_of_x(
    x, gradient, scales, shifts, of_x, constants, out, pixels, channels,
    SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    both = (row < pixels)[:, None] & inside[None, :]
    at = (image * pixels + row)[:, None] * channels + column[None, :]
    scale = tl.load(scales + image * channels + column, mask=inside, other=0.0)
    shift = tl.load(shifts + image * channels + column, mask=inside, other=0.0)
    value, given = _gradient_of_z(x, gradient, scale, shift, at, both, SILU)
    factor = tl.load(of_x + image * channels + column, mask=inside, other=0.0)
    constant = tl.load(constants + image * channels + column, mask=inside, other=0.0)
    tl.store(out + at, given * scale[None, :] + value * factor[None, :] + constant[None, :], mask=both)


_COLUMNS, _ROWS, _CHUNK = 128, 32, 256


class GroupNorm(torch.autograd.Function):
    """silu(group_norm(x + shift of each image's channel)) in one pass for the sums and one for the result.

    x: (images, channels, height, width), channels last. shift: (images, channels) without gradient, or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        shift: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor,
        epsilon: float,
        silu: bool,
    ) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        images, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        moved = x.new_zeros((images, channels)) if shift is None else shift.contiguous()
        chunks, blocks = triton.cdiv(pixels, _CHUNK), triton.cdiv(channels, _COLUMNS)
        sums = x.new_empty((images, chunks, 2, channels), dtype=torch.float32)
        _channel_sums[(images, chunks, blocks)](
            x, moved, sums, pixels, channels, CHUNK=_CHUNK, ROWS=_ROWS, COLUMNS=_COLUMNS
        )
        counted = pixels * channels // GROUPS
        # (images, 2, groups): the mean and the mean square of a group.
        means = sums.sum(1).view(images, 2, GROUPS, -1).sum(3) / counted
        mean = means[:, 0]
        inverse = torch.rsqrt((means[:, 1] - mean * mean).clamp_(min=0) + epsilon)
        scales = (inverse[:, :, None] * weight.float().view(1, GROUPS, -1)).view(images, channels)
        centred = moved.float().view(images, GROUPS, -1) - mean[:, :, None]
        shifts = centred.view(images, channels) * scales + bias.float()
        out = torch.empty_like(x)
        grid = (images, triton.cdiv(pixels, _ROWS), blocks)
        _scaled[grid](x, scales, shifts, out, pixels, channels, SILU=silu, ROWS=_ROWS, COLUMNS=_COLUMNS)
        ctx.save_for_backward(x, weight, inverse, centred, scales, shifts)
        ctx.silu = silu
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        x, weight, inverse, centred, scales, shifts = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        images, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        chunks, blocks = triton.cdiv(pixels, _CHUNK), triton.cdiv(channels, _COLUMNS)
        sums = x.new_empty((images, chunks, 2, channels), dtype=torch.float32)
        tiles = {"SILU": ctx.silu, "ROWS": _ROWS, "COLUMNS": _COLUMNS}
        _gradient_sums[(images, chunks, blocks)](
            x, gradient, scales, shifts, sums, pixels, channels, CHUNK=_CHUNK, **tiles
        )
        given, products = sums.sum(1).view(images, 2, GROUPS, -1).unbind(1)
        weights = weight.float().view(1, GROUPS, -1)
        counted = pixels * channels // GROUPS
        mean_given = (given * weights).sum(2) / counted
        # Of the gradient times the standardised value, (x + shift − mean) · inverse.
        mean_product = ((products + given * centred) * weights).sum(2) * inverse / counted
        of_x = (-(inverse * inverse) * mean_product)[:, :, None].expand_as(centred)
        constants = centred * of_x - (inverse * mean_given)[:, :, None]
        out = torch.empty_like(x)
        grid = (images, triton.cdiv(pixels, _ROWS), blocks)
        _gradient_of_x[grid](
            x, gradient, scales, shifts, of_x.reshape(images, channels), constants.reshape(images, channels), out,
            pixels, channels, **tiles,
        )  # fmt: skip
        return out, None, None, None, None, None
