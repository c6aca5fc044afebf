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
DOWN, UP = "down_in_compute_dtype", "up_in_compute_dtype"


class _Adapted(torch.autograd.Function):
    """x·Wᵀ + b + (x·downᵀ)·upᵀ, where only down and up learn: the LoRA's share is added inside the product that makes
    it, so that no kernel but the products' own touches the layer's output or its input's gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        inner = rows @ down.t()
        out = functional.linear(rows, weight, bias).addmm_(inner, up.t())
        ctx.save_for_backward(rows, inner, weight, down, up)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, inner, weight, down, up = ctx.saved_tensors
        given = gradient.reshape(-1, gradient.shape[-1])
        of_inner = given @ up
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (given @ weight).addmm_(of_inner, down).view(*gradient.shape[:-1], -1)
        return of_x, None, None, of_inner.t() @ rows, given.t() @ inner


class AdaptedLinear(nn.Linear):
    """A frozen linear layer with a LoRA; `adapter` is the trainer's LoRAModule, kept out of `_modules`: its parameters
    belong to the network, which is prepared, clipped and saved on its own.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002, nn.Linear's name for it
        adapter = self.__dict__["adapter"].__dict__
        out: torch.Tensor = _Adapted.apply(input, self.weight, self.bias, adapter[DOWN], adapter[UP])
        return out


class _CastTogether(torch.autograd.Function):
    """Scaled copies of many tensors in another dtype, in a few kernels; gradients come back in the tensors' own."""

    @staticmethod
    def forward(
        ctx: Any, dtype: torch.dtype, scales: list[float], *weights: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.scales, ctx.dtypes = scales, [weight.dtype for weight in weights]
        copies = [torch.empty_like(weight, dtype=dtype) for weight in weights]
        torch._foreach_copy_(copies, torch._foreach_mul(list(weights), scales))
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
            torch._foreach_mul_(results, [ctx.scales[index] for index in found])
        return (None, None, *cast)


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
        for name in (DOWN, UP):
            adapter.__dict__.pop(name, None)


def weights_of(adapters: Sequence[Any]) -> list[torch.Tensor]:
    """All `down`, then all `up`, as the trainer's optimizer has them."""
    return [getattr(adapter, name).weight for name in ("lora_down", "lora_up") for adapter in adapters]


def cast(adapters: Sequence[Any], weights: Sequence[torch.Tensor], dtype: torch.dtype) -> None:
    """Once a forward pass of the whole U-Net, of `weights_of(adapters)` or what stands for them; the adapter's scale
    goes into `up`.
    """
    count = len(adapters)
    scales = [float(adapter.multiplier * adapter.scale) for adapter in adapters]
    copies = _CastTogether.apply(dtype, [1.0] * count + scales, *weights)
    for adapter, down, up in zip(adapters, copies[:count], copies[count:], strict=True):
        adapter.__dict__[DOWN], adapter.__dict__[UP] = down, up
