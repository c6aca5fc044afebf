"""The U-Net's element-wise work in kernels of Triton, each of which reads and writes its tensors once.

For frozen layers: normalisations have no gradients of their own weights. Sums are taken in fp32. Every kernel has its
autograd function beside it; images lie in memory channels last, seen here as (images, pixels, channels).
"""

# ruff: noqa: N803, constants of a kernel are written in capitals
from typing import Any

import torch
import triton
import triton.language as tl

GROUPS = 32
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
