"""Writes recorded.json: what the trainer's own dataset code makes of each case.

Run it in an environment that has the trainer's packages (torch for the CPU suffices; torchvision is stubbed where it
is missing, because counting uses nothing of it), with a checkout of sd-scripts:

    git clone https://github.com/kohya-ss/sd-scripts && git -C sd-scripts checkout 2e0fcc5
    pip install torch transformers==4.44.0 diffusers==0.25.0 accelerate==0.33.0 huggingface-hub==0.24.5 \
        opencv-python-headless toml voluptuous imagesize einops pillow rich
    python tests/unit/functions/trainer_comparison/record.py --sd-scripts sd-scripts

The images are made in a temporary folder, one colour each; the trainer reads their headers.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import json
import math
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from cases import Case, cases

RECORDED = Path(__file__).with_name("recorded.json")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sd-scripts", required=True, type=Path)
    sys.path.insert(0, str(parser.parse_args().sd_scripts.resolve()))
    stub_what_is_missing()
    recorded = {}
    for case in cases():
        with tempfile.TemporaryDirectory() as folder:
            recorded[case.name] = _of_trainer(case, Path(folder))
        print(case.name, recorded[case.name]["batches"], flush=True)
    RECORDED.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


def dataset_group(folder: Path, config: dict[str, Any]) -> tuple[argparse.Namespace, Any]:
    """The trainer's options, and its datasets of `folder`/train and `folder`/reg."""
    from library import config_util
    from train_network import setup_parser

    args = setup_parser().parse_args([])
    for name, value in {**config, "caption_extension": ".txt"}.items():
        assert hasattr(args, name), f"{name} is no option of the trainer"
        setattr(args, name, value)
    args.train_data_dir, args.reg_data_dir = str(folder / "train"), str(folder / "reg")
    args.resolution = tuple(int(side) for side in str(args.resolution).split(","))
    args.resolution *= 3 - len(args.resolution)  # verify: one number stands for both sides
    generator = config_util.BlueprintGenerator(config_util.ConfigSanitizer(True, True, False, True))
    subsets = config_util.generate_dreambooth_subsets_config_by_subdirs(
        args.train_data_dir, args.reg_data_dir
    )
    blueprint = generator.generate({"datasets": [{"subsets": subsets}]}, args)
    group, _ = config_util.generate_dataset_group_by_blueprint(blueprint.dataset_group)
    return args, group


def _of_trainer(case: Case, folder: Path) -> dict[str, Any]:
    """train_network.py's way from options to the data loader, and its own sums."""
    import torch
    from accelerate import Accelerator
    from accelerate.data_loader import prepare_data_loader

    Accelerator(cpu=True)  # its state is what prepare_data_loader asks
    _make_images(case, folder)
    args, group = dataset_group(folder, case.config)
    manager = group.datasets[0].bucket_manager
    loader = torch.utils.data.DataLoader(group, batch_size=1, shuffle=True)
    # max_train_epochs: train_network.py, "override steps"; max_train_steps: its num_update_steps_per_epoch.
    steps = 3 * math.ceil(len(loader) / case.gpus / args.gradient_accumulation_steps)
    prepared = prepare_data_loader(loader, num_processes=case.gpus, process_index=0, put_on_device=False)
    return {
        "buckets": {
            f"{width}x{height}": len(images)
            for (width, height), images in sorted(zip(manager.resos, manager.buckets, strict=True))
            if images
        },
        "batches": len(group),
        "batches_a_process": len(prepared),
        "steps_an_epoch": math.ceil(len(prepared) / args.gradient_accumulation_steps),
        "steps_of_3_epochs": steps,
    }


def _make_images(case: Case, folder: Path) -> None:
    from PIL import Image

    (folder / "reg").mkdir()
    for name, sizes in case.folders.items():
        target = folder / (name if name.startswith("reg/") else f"train/{name}")
        target.mkdir(parents=True)
        for number, size in enumerate(sizes):
            Image.new("L", size).save(target / f"{number:03}.png")


def stub_what_is_missing() -> None:
    if importlib.util.find_spec("torchvision") is not None:
        return
    module = types.ModuleType("torchvision")
    module.__spec__ = importlib.machinery.ModuleSpec("torchvision", None)
    module.transforms = types.SimpleNamespace(  # type: ignore[attr-defined]
        **dict.fromkeys(("Compose", "ToTensor", "Normalize", "Resize", "InterpolationMode"), lambda *_: None)
    )
    sys.modules["torchvision"] = module


if __name__ == "__main__":
    main()
