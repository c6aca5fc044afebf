"""The result: a LoRA in Kohya's naming with Kohya's ss_* metadata, and the mark of a rehearsal."""

import json
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from rehearsal_trainer.dataset import Dataset
from rehearsal_trainer.log import plain
from rehearsal_trainer.network import Network

RECORDED_OPTIONS = (
    "output_name",
    "learning_rate",
    "unet_lr",
    "network_module",
    "network_dim",
    "network_alpha",
    "mixed_precision",
    "max_train_steps",
    "lr_scheduler",
    "lr_warmup_steps",
    "gradient_accumulation_steps",
    "seed",
    "training_comment",
)


def save_lora(path: Path, network: Network, metadata: dict[str, Any]) -> None:
    """float16 tensors; metadata values are strings, nested ones JSON, None is written as Kohya writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain(f"\nsaving checkpoint: {path}")
    texts = {
        key: json.dumps(value) if isinstance(value, dict | list) else str(value)
        for key, value in metadata.items()
    }
    network.save_weights(str(path), np.float16, {**texts, "rehearsal": "true"})


def describe(args: Namespace, dataset: Dataset, epochs: int, began: float) -> dict[str, Any]:
    """What is known before the first step."""
    return {
        **{f"ss_{name}": getattr(args, name) for name in RECORDED_OPTIONS},
        "ss_training_started_at": began,
        "ss_num_train_images": dataset.repeated,
        "ss_num_reg_images": sum(image.repeats for image in dataset.images if image.is_reg),
        "ss_num_batches_per_epoch": dataset.batches,
        "ss_num_epochs": epochs,
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_sd_model_name": args.pretrained_model_name_or_path,
        "ss_batch_size_per_device": args.train_batch_size,
        "ss_optimizer": "rehearsal.AdamW",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.title": args.output_name,
        "modelspec.date": time.strftime("%Y-%m-%dT%H:%M:%S"),
        **dataset.metadata(),
    }
