"""Runs the peer's script, and tells each step in this project's own form; ends with the last one.

    python run.py SCRIPT FOLDER PICTURES STEPS [the script's arguments…]

FOLDER gets an SDXL of random weights in diffusers' format, unless it is there. What the script does after its last step
(it loads the whole pipeline again) is left out.
"""

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import torch
import tqdm.auto


def main(script: str, folder: Path, pictures: str, steps: int, *arguments: str) -> None:
    if not (folder / "model_index.json").exists():
        fabricate(folder)

    class Told(tqdm.auto.tqdm):  # type: ignore[type-arg]
        def update(self, n: float | None = 1) -> Any:
            done = super().update(n)
            # The bar itself leaves its line open.
            print(f"\nprogress step={int(self.n)} total={steps} loss=0", flush=True)
            if self.n >= steps:
                print(f"peak_gib={torch.cuda.max_memory_allocated() / 2**30:.2f}", flush=True)
                os._exit(0)
            return done

    tqdm.auto.tqdm = Told
    given = {
        "pretrained_model_name_or_path": folder,
        "train_data_dir": pictures,
        "max_train_steps": steps,
        "output_dir": folder.parent / "peer-output",
        "report_to": "tensorboard",
    }
    sys.argv = [script, *(f"--{name}={value}" for name, value in given.items()), *arguments]
    sys.path[0] = str(Path(script).parent)
    # The place of this file's `datasets`.
    sys.path.append(str(Path(__file__).parent))
    runpy.run_path(script, run_name="__main__")


def fabricate(folder: Path) -> None:
    """Random weights, as in tests/gpu/fabricated.py, in the hub's layout. Needs sd-scripts on PYTHONPATH."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from library import model_util, sdxl_model_util
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    text = {"vocab_size": 49408, "max_position_embeddings": 77, "pad_token_id": 1, "bos_token_id": 0}
    text |= {"eos_token_id": 2}
    wide = {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
    }
    narrow = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    }
    with torch.device("cuda"):
        first = CLIPTextModel._from_config(
            CLIPTextConfig(hidden_act="quick_gelu", projection_dim=768, **narrow, **text)
        )
        second = CLIPTextModelWithProjection._from_config(
            CLIPTextConfig(hidden_act="gelu", projection_dim=1280, **wide, **text)
        )
        unet = UNet2DConditionModel(**sdxl_model_util.DIFFUSERS_SDXL_UNET_CONFIG)
        vae = AutoencoderKL(**model_util.create_vae_diffusers_config())
    parts = {"text_encoder": first, "text_encoder_2": second, "unet": unet}
    for name, part in parts.items():
        part.half().save_pretrained(folder / name)
    vae.save_pretrained(folder / "vae")
    DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    ).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), *sys.argv[5:])
