"""The modules of a LoRA of SDXL by the names that Kohya's networks give them, under which AUTOMATIC1111, ComfyUI and
diffusers look for them.

Recorded from the trainer and from diffusers' own conversion: tests/container/data/lora_modules.json.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

# Modules of all three networks are named alike.
NETWORKS = frozenset({"networks.lora", "networks.lora_fa", "networks.dylora"})
# The place of each spatial transformer in the U-Net → its blocks.
_TRANSFORMERS = {
    **{f"input_blocks_{index}_1": 2 for index in (4, 5)},
    **{f"input_blocks_{index}_1": 10 for index in (7, 8)},
    "middle_block_1": 10,
    **{f"output_blocks_{index}_1": 10 for index in (0, 1, 2)},
    **{f"output_blocks_{index}_1": 2 for index in (3, 4, 5)},
}
_BLOCK = (
    *(f"attn{number}_to_{part}" for number in (1, 2) for part in ("q", "k", "v", "out_0")),
    *("ff_net_0_proj", "ff_net_2"),
)
_TEXT_LAYERS = {"te1": 12, "te2": 32}
_TEXT_LAYER = (*(f"self_attn_{part}_proj" for part in ("q", "k", "v", "out")), "mlp_fc1", "mlp_fc2")
# What conv_dim adds: the residual blocks with what changes the size between them.
_CONVOLUTION = re.compile(
    r"lora_unet_(?:(?:input|output)_blocks_\d_[012]|middle_block_[02])_"
    r"(?:in_layers_2|out_layers_3|emb_layers_1|skip_connection|op|conv)"
)
# Arguments that give a block another rank, of which 0 is none.
_BY_BLOCK = ("block_", "conv_block_", "down_lr_weight", "mid_lr_weight", "up_lr_weight")


def unet_modules() -> set[str]:
    """722 of them."""
    return {
        f"lora_unet_{place}_{part}"
        for place, blocks in _TRANSFORMERS.items()
        for part in (
            *("proj_in", "proj_out"),
            *(f"transformer_blocks_{block}_{part}" for block in range(blocks) for part in _BLOCK),
        )
    }


def text_encoder_modules() -> set[str]:
    """264 of both encoders."""
    return {
        f"lora_{encoder}_text_model_encoder_layers_{layer}_{part}"
        for encoder, layers in _TEXT_LAYERS.items()
        for layer in range(layers)
        for part in _TEXT_LAYER
    }


def odd_and_missing(
    found: Collection[str], options: Mapping[str, Any], arguments: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Modules that a model of these options must not have, and those that it lacks; both sorted.

    arguments: network_args. Where they choose ranks by block, nothing is missing.
    """
    expected: set[str] = set() if options.get("network_train_text_encoder_only") else unet_modules()
    expected |= set() if options.get("network_train_unet_only") else text_encoder_modules()
    convolutions = any(name.startswith("conv_") for name in arguments)
    odd = [
        name for name in sorted(set(found) - expected) if not (convolutions and _CONVOLUTION.fullmatch(name))
    ]
    by_block = any(name.startswith(_BY_BLOCK) for name in arguments)
    return odd, [] if by_block else sorted(expected - set(found))
