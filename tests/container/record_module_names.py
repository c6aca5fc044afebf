"""Records the modules of a LoRA of SDXL: the trainer's name of each, and the module to which diffusers applies it.

    python tests/container/record_module_names.py SD_SCRIPTS COMMIT > tests/container/data/lora_modules.json

It asks the trainer's own network, on the U-Net and text encoders that the trainer makes, and diffusers' own conversion.
Needs torch and the trainer's packages, but neither weights nor a GPU.
"""

import importlib
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any


def models() -> tuple[Any, list[Any]]:
    """U-Net and text encoders of SDXL without weights (sdxl_model_util.py, load_models_from_sdxl_checkpoint)."""
    import torch
    from library.sdxl_original_unet import SdxlUNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    kinds = ((CLIPTextModel, 768, 12), (CLIPTextModelWithProjection, 1280, 32))
    with torch.device("meta"):
        encoders = [
            kind(CLIPTextConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers))
            for kind, width, layers in kinds
        ]
        return SdxlUNet2DConditionModel(), encoders


def network(
    unet: Any, encoders: list[Any], module: str = "networks.lora", text: bool = True, **arguments: str
) -> Any:
    """The trainer's own, of rank 1."""
    import torch

    with torch.device("meta"):
        made = importlib.import_module(module).create_network(1.0, 1, 1.0, None, encoders, unet, **arguments)
        made.apply_to(encoders, unet, text, True)
    return made


def modules_of(made: Any) -> set[str]:
    return {name.partition(".")[0] for name in made.state_dict()}


def converted(made: Any, encoders: list[Any]) -> dict[str, str]:
    """The trainer's name → the module of diffusers' pipeline, each of whose shape the tensors are.

    diffusers refuses no key that it does not know. So each module's tensors are filled with its number, by which it is
    found where the conversion puts it.
    """
    import torch
    from diffusers import UNet2DConditionModel
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
    from diffusers.utils import (
        convert_state_dict_to_diffusers,
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )
    from library.sdxl_model_util import DIFFUSERS_SDXL_UNET_CONFIG
    from safetensors.torch import save_file

    names = sorted(modules_of(made))
    tensors = {
        name: torch.full(
            tensor.shape, 1.0 if name.endswith(".alpha") else names.index(name.partition(".")[0])
        )
        for name, tensor in made.state_dict().items()
    }
    with torch.device("meta"):
        unet = UNet2DConditionModel(**DIFFUSERS_SDXL_UNET_CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lora.safetensors"
        save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, path)
        state, _ = StableDiffusionXLLoraLoaderMixin.lora_state_dict(str(path), unet_config=unet.config)
    found: dict[str, str] = {}
    for part, model in {"unet": unet, "text_encoder": encoders[0], "text_encoder_2": encoders[1]}.items():
        own = {
            name.removeprefix(f"{part}."): one for name, one in state.items() if name.startswith(f"{part}.")
        }
        if part == "unet":
            pairs = convert_unet_state_dict_to_peft(own)
        else:
            pairs = convert_state_dict_to_peft(convert_state_dict_to_diffusers(own))
        modules = dict(model.named_modules())
        for down in (name for name in pairs if name.endswith(".lora_A.weight")):
            place = down.removesuffix(".lora_A.weight")
            up, weight = pairs[f"{place}.lora_B.weight"], modules[place].weight
            if weight.shape[:2] != (up.shape[0], pairs[down].shape[1]):
                raise ValueError(f"{place} is of {weight.shape}, its LoRA is not")
            number = int(pairs[down].flatten()[0])
            assert number == int(up.flatten()[0])
            found[names[number]] = f"{part}.{place}"
    return dict(sorted(found.items()))


def main(sd_scripts: str, commit: str) -> None:
    sys.path.insert(0, sd_scripts)
    unet, encoders = models()
    sources = {"sd-scripts": commit, "diffusers": version("diffusers")}
    print(json.dumps({**sources, "modules": converted(network(unet, encoders), encoders)}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
