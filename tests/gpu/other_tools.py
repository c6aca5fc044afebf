"""Whether a LoRA loads where other programs read it: through diffusers' own key conversion, onto a U-Net of SDXL.

diffusers refuses nothing by itself: a key that it does not know is silently kept. So every converted pair is matched
with the module it would change, by name and by shape.

    python other_tools.py MODEL
    prints the answer of `unmatched` as JSON
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# stabilityai/stable-diffusion-xl-base-1.0, unet/config.json.
UNET: dict[str, Any] = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}


def packages() -> str:
    """PYTHONPATH for programs that are newer than the trainer's own packages, which OTHER_TOOLS may hold."""
    return os.pathsep.join(filter(None, (os.environ.get("OTHER_TOOLS"), os.environ.get("PYTHONPATH"))))


def unmatched_elsewhere(path: Path) -> tuple[int, int, list[str]]:
    """As `unmatched`, with those packages. Raises CalledProcessError for what diffusers refuses."""
    variables = {**os.environ, "PYTHONPATH": packages()}
    done = subprocess.run(
        [sys.executable, __file__, path], env=variables, check=True, stdout=subprocess.PIPE, text=True
    )
    unet, text, wrong = json.loads(done.stdout.splitlines()[-1])
    return unet, text, wrong


def unmatched(path: Path) -> tuple[int, int, list[str]]:
    """(pairs on the U-Net, pairs on the text encoders, those of the U-Net that fit no module).

    Raises ValueError, from diffusers, for a file that it takes for no LoRA of SDXL.
    """
    import torch
    from diffusers import UNet2DConditionModel
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
    from diffusers.utils import convert_unet_state_dict_to_peft

    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNET)
    modules = dict(unet.named_modules())
    # By its name: without a hub, diffusers does not look for a file itself.
    state, _ = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
        str(path.parent), weight_name=path.name, unet_config=unet.config
    )
    text = [name for name in state if name.startswith("text_encoder") and ".down." in name]
    pairs = convert_unet_state_dict_to_peft(
        {name.removeprefix("unet."): value for name, value in state.items() if name.startswith("unet.")}
    )
    downs = [name for name in pairs if name.endswith(".lora_A.weight")]
    wrong = [name for name in pairs if ".lora_A." not in name and ".lora_B." not in name]
    for down in downs:
        up = pairs.get(down.replace(".lora_A.", ".lora_B."))
        weight = getattr(modules.get(down.removesuffix(".lora_A.weight")), "weight", None)
        if weight is None or up is None or weight.shape[:2] != (up.shape[0], pairs[down].shape[1]):
            wrong.append(down)
    return len(downs), len(text), wrong


if __name__ == "__main__":
    print(json.dumps(unmatched(Path(sys.argv[1]).absolute())))
