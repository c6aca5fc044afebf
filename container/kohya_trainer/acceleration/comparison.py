"""The fast U-Net is believed when it has answered as the trainer's own, on a part of the first batch of the very run.

So that whatever is different on a machine (its GPU, torch, Triton, a compiler's fault) costs speed and not a model.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from kohya_trainer.acceleration.adapters import weights_of
from kohya_trainer.acceleration.graphs import difference
from kohya_trainer.acceleration.unet import FastUNet

# In bf16 both are about 0.02 from fp32 (docs/benchmarks.md); a wrong kernel is far beyond.
MOST_DIFFERENCE = 0.08
# Of the latents of one image: 512 x 512 pixels.
SIDE = 64


def stand_in(
    unet: Any, adapters: Sequence[Any], make: Callable[[], FastUNet], say: Callable[[str], None]
) -> None:
    """`unet.forward` stays the trainer's until the first batch that is learned from, then is the fast one if it may be.

    make: folds the adapters into the U-Net, so that the trainer's own no longer works until `restore`.
    """
    own = unet.forward

    def first(*given: Any, **named: Any) -> Any:
        if torch.is_grad_enabled():
            unet.forward = _chosen(own, adapters, make, say, given)
            return unet.forward(*given, **named)
        return own(*given, **named)

    unet.forward = first


def _chosen(
    own: Callable[..., Any],
    adapters: Sequence[Any],
    make: Callable[[], FastUNet],
    say: Callable[[str], None],
    given: Sequence[torch.Tensor],
) -> Callable[..., Any]:
    weights = weights_of(adapters)
    ups = weights[len(adapters) :]
    kept = [up.detach().clone() for up in ups]
    fast = None
    try:
        # A LoRA begins with zeros, which would hide its own part.
        random = torch.Generator(ups[0].device).manual_seed(0)
        for up in ups:
            up.data.normal_(std=0.01, generator=random)
        expected = _answer(own, weights, given)
        fast = make()
        far = difference(_answer(fast.launch, weights, given), expected)
    except Exception as error:  # whatever it is, the trainer itself can train
        reason = f"it failed ({type(error).__name__}: {str(error).splitlines()[:1]})"
    else:
        # Not a number is not less.
        reason = "" if far < MOST_DIFFERENCE else f"it differs by {far:.1%} from the trainer's own"
    finally:
        torch._foreach_copy_([up.data for up in ups], kept)
    if not reason and fast is not None:
        say(f"fast U-Net: {len(adapters)} adapters, {fast.again_share:.0%} computed again, {far:.2%} apart")
        return lambda *inputs, **named: fast(*inputs, **named).float()
    if fast is not None:
        fast.restore()
    say(f"not used, because {reason}")
    return own


def _answer(
    forward: Callable[..., torch.Tensor], weights: Sequence[torch.Tensor], given: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """What comes out for a part of the first image, and the gradients of the adapters."""
    x, timesteps, context, y = (value.detach()[:1] for value in given[:4])
    x = x[..., :SIDE, :SIDE].contiguous().requires_grad_(True)
    out = forward(x, timesteps, context, y)
    # Not all alike: what adds up to nothing would be hidden.
    of_out = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape).to(out.dtype)
    before = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    # Not autograd.grad: the trainer's checkpointing refuses it.
    out.backward(of_out)
    gradients = [weight.grad for weight in weights]
    for weight, gradient in zip(weights, before, strict=True):
        weight.grad = gradient
    return [out.detach().float(), *gradients]
