"""LoRA inside the linear layer that it adapts, instead of around its forward.

The trainer (sd-scripts, networks/lora.py, LoRAModule.apply_to) puts each adapter's bound `forward` in place of its
layer's. That is one call of Python, one closure for torch.compile and, under autocast, two casts more for every one of
the U-Net's 722 layers. Here the layer's class knows its adapter, and the adapters' weights are cast once a step, all
together. Parameters, their names, the optimizer and what is saved stay the trainer's.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# In an adapter's __dict__, so that neither state_dict nor parameters() sees them.
DOWN, UP, SCALE = "down_in_compute_dtype", "up_in_compute_dtype", "scale_of_product"


class _Adapted(torch.autograd.Function):
    """x·Wᵀ + b + scale·(x·downᵀ)·upᵀ, where only down and up learn: the LoRA's share is added inside the product that
    makes it, so that no kernel but the products' own touches the layer's output or its input's gradient.

    The scale is the products' own, too: within `up`, the first values of a training would be too small for fp16
    (1e-5 at alpha 1 and rank 256), and products without it would be larger than the trainer's by as much.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        inner = rows @ down.t()
        out = functional.linear(rows, weight, bias).addmm_(inner, up.t(), alpha=scale)
        ctx.scale = scale
        ctx.save_for_backward(rows, inner, weight, down, up)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, inner, weight, down, up = ctx.saved_tensors
        given = gradient.reshape(-1, gradient.shape[-1])
        of_inner = _product(given, up, ctx.scale)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (given @ weight).addmm_(of_inner, down).view(*gradient.shape[:-1], -1)
        return of_x, None, None, of_inner.t() @ rows, _product(given.t(), inner, ctx.scale), None


def _product(one: torch.Tensor, other: torch.Tensor, scale: float) -> torch.Tensor:
    """scale·one·other, by the kernel of one·other."""
    return one.new_empty(one.shape[0], other.shape[1]).addmm_(one, other, beta=0, alpha=scale)


class AdaptedLinear(nn.Linear):
    """A frozen linear layer with a LoRA; `adapter` is the trainer's LoRAModule, kept out of `_modules`: its parameters
    belong to the network, which is prepared, clipped and saved on its own.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002, nn.Linear's name for it
        adapter = self.__dict__["adapter"].__dict__
        lora = (adapter[DOWN], adapter[UP], adapter[SCALE])
        out: torch.Tensor = _Adapted.apply(input, self.weight, self.bias, *lora)
        return out


class _CastTogether(torch.autograd.Function):
    """Copies of many tensors in another dtype, in a few kernels; gradients come back in the tensors' own."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.dtypes = [weight.dtype for weight in weights]
        copies = [torch.empty_like(weight, dtype=dtype) for weight in weights]
        torch._foreach_copy_(copies, list(weights))
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[Any, ...]:
        found = [index for index, gradient in enumerate(gradients) if gradient is not None]
        cast: list[torch.Tensor | None] = [None] * len(gradients)
        for index in found:
            cast[index] = torch.empty_like(gradients[index], dtype=ctx.dtypes[index])
        if found:
            results = [cast[index] for index in found]
            torch._foreach_copy_(results, [gradients[index] for index in found])
        return (None, *cast)


def unsupported(adapter: Any) -> str | None:
    """Why this adapter cannot be folded into its layer; None when it can."""
    if type(adapter).__name__ != "LoRAModule":
        return f"{type(adapter).__name__} is not the trainer's LoRAModule"
    if any(getattr(adapter, name, None) for name in ("dropout", "rank_dropout", "module_dropout")):
        return "the LoRA has dropout"
    if getattr(adapter, "split_dims", None) is not None:
        return "the LoRA is split"
    layer = getattr(adapter.org_forward, "__self__", None)
    if type(layer) is not nn.Linear:
        return f"{type(layer).__name__} is adapted, not a linear layer"
    return None


def fold(adapters: Iterable[Any]) -> None:
    """Makes each adapter's layer an AdaptedLinear; call `unsupported` for all of them before."""
    for adapter in adapters:
        layer = adapter.org_forward.__self__
        layer.__dict__.pop("forward", None)
        layer.__class__ = AdaptedLinear
        layer.__dict__["adapter"] = adapter


def unfold(adapters: Iterable[Any]) -> None:
    """The trainer's own arrangement again."""
    for adapter in adapters:
        layer = adapter.org_forward.__self__
        if layer.__dict__.pop("adapter", None) is not None:
            layer.__class__ = nn.Linear
            layer.forward = adapter.forward
        for name in (DOWN, UP, SCALE):
            adapter.__dict__.pop(name, None)


def weights_of(adapters: Sequence[Any]) -> list[torch.Tensor]:
    """All `down`, then all `up`, as the trainer's optimizer has them."""
    return [getattr(adapter, name).weight for name in ("lora_down", "lora_up") for adapter in adapters]


def cast(adapters: Sequence[Any], weights: Sequence[torch.Tensor], dtype: torch.dtype) -> None:
    """Once a forward pass of the whole U-Net, of `weights_of(adapters)` or what stands for them."""
    count = len(adapters)
    copies = _CastTogether.apply(dtype, *weights)
    for adapter, down, up in zip(adapters, copies[:count], copies[count:], strict=True):
        adapter.__dict__[DOWN], adapter.__dict__[UP] = down, up
        adapter.__dict__[SCALE] = float(adapter.multiplier * adapter.scale)
