"""The trainer's U-Net, doing the same arithmetic in fewer kernels.

Written for library/sdxl_original_unet.py of sd-scripts 2e0fcc5: its blocks are known by their classes' names, and each
function below is that class's forward, with three differences. There is no autocast: the weights are in the compute
dtype already, and normalisations sum in fp32 inside their kernels. Images lie channels last, so that they become tokens
without a copy. And nothing is differentiated before the first layer that learns: the trainer asks for gradients of the
noisy latents, which nobody reads.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from kohya_trainer.acceleration import adapters as lora
from kohya_trainer.acceleration.graphs import Graphs
from kohya_trainer.acceleration.operations import add_norm, geglu, group_norm

BLOCK, RESIDUAL, TRANSFORMER = "BasicTransformerBlock", "ResnetBlock2D", "Transformer2DModel"
Pair = tuple[torch.Tensor, torch.Tensor | None]
# Graphs gain nothing where the forward pass takes the GPU so many times as long as Python takes to launch it. The
# backward pass launches more for each of the GPU's seconds: at 1.2 times, an H100 still lost a fifth without graphs.
GPU_BOUND = 2.0


def attend(layer: Any, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """CrossAttention.forward_sdpa."""
    q, k, v = (
        projected.unflatten(2, (layer.heads, -1)).transpose(1, 2)
        for projected in (layer.to_q(x), layer.to_k(context), layer.to_v(context))
    )
    out = functional.scaled_dot_product_attention(q, k, v)
    return layer.to_out[0](out.transpose(1, 2).flatten(2))


def transformer_block(
    block: Any, hidden: torch.Tensor, update: torch.Tensor | None, context: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """BasicTransformerBlock.forward_body; the tokens are hidden + update, added where they are normalised next."""
    hidden, normed = add_norm(hidden, update, block.norm1)
    hidden, normed = add_norm(hidden, attend(block.attn1, normed, normed), block.norm2)
    hidden, normed = add_norm(hidden, attend(block.attn2, normed, context), block.norm3)
    return hidden, block.ff.net[2](geglu(block.ff.net[0].proj(normed)))


def residual_block(block: Any, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    """ResnetBlock2D.forward_body; the first convolution's bias and the embedding go into the second norm."""
    first, second = block.in_layers[2], block.out_layers[3]
    hidden = group_norm(x, None, block.in_layers[0], silu=True)
    hidden = functional.conv2d(hidden, first.weight, None, first.stride, first.padding)
    shift = block.emb_layers(embedding) + first.bias
    if shift.requires_grad:  # text encoders learn, too
        hidden, shift = hidden + shift[:, :, None, None], None
    hidden = second(group_norm(hidden, shift, block.out_layers[0], silu=True))
    return block.skip_connection(x) + hidden


class FastUNet:
    """Stands in for `unet.forward`; `restore` gives the trainer's own back.

    Attributes:
        again: share of the blocks (0 to 1) whose insides are computed again in the backward pass instead of kept.
        text_learns: whether gradients of the text encoders' outputs are wanted.
        graphs: None to launch every kernel from Python.
        batch: images of a full batch.
    """

    def __init__(
        self,
        unet: Any,
        adapters: list[Any],
        again: float = 0.0,
        text_learns: bool = False,
        with_graphs: bool = False,
        batch: int = 1,
        say: Callable[[str], None] = print,
    ) -> None:
        self.unet, self.adapters, self.batch, self._full_batches = unet, adapters, batch, 0
        self.dtype, self.text_learns, self.say = next(unet.parameters()).dtype, text_learns, say
        blocks = [part for part in unet.modules() if type(part).__name__ in (BLOCK, RESIDUAL)]
        # Spread evenly over the U-Net.
        self.again_share = again
        self.again = {
            id(block)
            for index, block in enumerate(blocks)
            if int((index + 1) * again + 1e-6) > int(index * again + 1e-6)
        }
        self.weights = lora.weights_of(adapters)
        self.graphs = Graphs(self._forward, self.weights) if with_graphs and not text_learns else None
        lora.fold(adapters)
        unet.to(memory_format=torch.channels_last)

    def restore(self) -> None:
        lora.unfold(self.adapters)
        self.unet.to(memory_format=torch.contiguous_format)

    def __call__(
        self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, y: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        """SdxlUNet2DConditionModel.forward."""
        return self._run_by(self._run_whole, x, timesteps, context, y)

    def launch(
        self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        """The same without graphs."""
        return self._run_by(self._forward, x, timesteps, context, y)

    def _run_by(self, run: Callable[..., torch.Tensor], *given: torch.Tensor) -> torch.Tensor:
        x, timesteps, *conditions = given
        with torch.autocast(x.device.type, enabled=False):
            inputs = [value.to(self.dtype) for value in (x.detach(), *conditions)]
            if not self.text_learns:
                inputs = [value.detach() for value in inputs]
            return run(timesteps.expand(x.shape[0]), *inputs).to(x.dtype)

    def _run_whole(self, *inputs: torch.Tensor) -> torch.Tensor:
        if self.graphs is None or not torch.is_grad_enabled():
            return self._forward(*inputs)
        if self._full_batches < 2:
            return self._launched(*inputs)
        try:
            pair = self.graphs.pair(self.adapters[0].multiplier, *inputs)
        except RuntimeError as error:  # torch's for memory is one, too
            self._without_graphs(f"{type(error).__name__}: {error}".splitlines()[0])
            return self._forward(*inputs)
        return self.graphs.replay(pair, *inputs)

    def _launched(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Kernel by kernel. The second full batch is timed: where the GPU is the slower, graphs gain nothing."""
        if inputs[0].shape[0] < self.batch:
            return self._forward(*inputs)
        self._full_batches += 1
        if self._full_batches == 1:
            return self._forward(*inputs)
        torch.cuda.synchronize()
        began = time.perf_counter()
        out = self._forward(*inputs)
        launched = time.perf_counter() - began
        torch.cuda.synchronize()
        ended = time.perf_counter() - began
        if ended > GPU_BOUND * launched:
            self._without_graphs(f"the GPU takes {ended:.2f} s for what is launched in {launched:.2f} s")
        return out

    def _without_graphs(self, reason: str) -> None:
        self.say(f"acceleration: no CUDA graphs ({reason}); kernels are launched one by one")
        if self.graphs is not None:
            self.graphs.clear()
        self.graphs = None
        torch.cuda.empty_cache()

    def _forward(
        self,
        timesteps: torch.Tensor,
        x: torch.Tensor,
        context: torch.Tensor,
        y: torch.Tensor,
        weights: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        lora.cast(self.adapters, self.weights if weights is None else weights, self.dtype)
        unet = self.unet
        sinusoids = _sinusoids(timesteps, unet.model_channels).to(self.dtype)
        embedding = unet.time_embed(sinusoids) + unet.label_emb(y)
        hidden = x.contiguous(memory_format=torch.channels_last)
        skipped = []
        for part in unet.input_blocks:
            hidden = self._part(part, hidden, embedding, context)
            skipped.append(hidden)
        hidden = self._part(unet.middle_block, hidden, embedding, context)
        for part in unet.output_blocks:
            hidden = self._part(part, torch.cat([hidden, skipped.pop()], dim=1), embedding, context)
        return unet.out[2](group_norm(hidden, None, unet.out[0], silu=True))

    def _part(
        self, part: Any, hidden: torch.Tensor, embedding: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        for layer in part:
            name = type(layer).__name__
            if name == RESIDUAL:
                hidden = self._run(residual_block, layer, hidden, embedding)
            elif name == TRANSFORMER:
                hidden = self._transformer(layer, hidden, context)
            elif name == "Upsample2D":
                hidden = layer.conv(functional.interpolate(hidden, scale_factor=2.0, mode="nearest"))
            elif name == "Downsample2D":
                hidden = layer.op(hidden)
            else:
                hidden = layer(hidden)
        return hidden

    def _transformer(self, layer: Any, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        normed = group_norm(x, None, layer.norm, silu=False)
        pair: Pair = (layer.proj_in(normed.permute(0, 2, 3, 1).flatten(1, 2)), None)
        for block in layer.transformer_blocks:
            pair = self._run(transformer_block, block, *pair, context)
        hidden, update = pair
        tokens = layer.proj_out(hidden if update is None else hidden + update)
        return tokens.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2) + x

    def _run(self, body: Callable[..., Any], block: Any, *arguments: Any) -> Any:
        if id(block) in self.again and torch.is_grad_enabled():
            # Nothing in the blocks is random.
            return checkpoint(body, block, *arguments, use_reentrant=False, preserve_rng_state=False)
        return body(block, *arguments)


def _sinusoids(timesteps: torch.Tensor, channels: int) -> torch.Tensor:
    """get_timestep_embedding of the same file: (images,) → (images, channels)."""
    half = channels // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps[:, None].float() * torch.exp(-9.210340371976184 * exponents)[None, :]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
