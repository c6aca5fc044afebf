"""State folders in Kohya's and accelerate's naming: everything that a restart needs to go on as if
nothing had happened.
"""

import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from rehearsal_trainer.log import info
from rehearsal_trainer.network import AdamW, Network


def save_state(
    folder: Path, network: Network, optimizer: AdamW, rng: np.random.Generator, epoch: int, step: int
) -> None:
    """model.safetensors, optimizer.bin, scheduler.bin, random_states_0.pkl (JSON here) and
    train_state.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    info(f"save train state to {folder / 'train_state.json'} at epoch {epoch} step {step}")
    (folder / "train_state.json").write_text(
        json.dumps({"current_epoch": epoch, "current_step": step}), encoding="utf-8"
    )
    save_file(network.parameters(), folder / "model.safetensors")
    moments = {
        f"{name}.{index}": array
        for name, pair in optimizer.moments.items()
        for index, array in enumerate(pair)
    }
    save_file(moments, folder / "optimizer.bin")
    (folder / "scheduler.bin").write_text(json.dumps({"last_epoch": optimizer.steps}), encoding="utf-8")
    (folder / "random_states_0.pkl").write_text(json.dumps(rng.bit_generator.state), encoding="utf-8")


def load_state(folder: Path, network: Network, optimizer: AdamW, rng: np.random.Generator) -> int:
    """Puts everything back in place and returns the number of steps that train_state.json tells."""
    info(f"resume training from local state: {folder}")
    for name, array in load_file(folder / "model.safetensors").items():
        network.parameters()[name][...] = array
    moments = load_file(folder / "optimizer.bin")
    for name, pair in optimizer.moments.items():
        for index, array in enumerate(pair):
            array[...] = moments[f"{name}.{index}"]
    optimizer.steps = int(json.loads((folder / "scheduler.bin").read_text(encoding="utf-8"))["last_epoch"])
    rng.bit_generator.state = json.loads((folder / "random_states_0.pkl").read_text(encoding="utf-8"))
    data: dict[str, Any] = json.loads((folder / "train_state.json").read_text(encoding="utf-8"))
    info(f"load train state from {folder / 'train_state.json'}: {data}")
    return int(data["current_step"])


def remove_old_state(args: Namespace, step: int) -> None:
    """save_last_n_steps_state, counted as save_and_remove_state_stepwise counts."""
    last = args.save_last_n_steps_state or args.save_last_n_steps
    if last is None:
        return
    old = step - int(last) - 1
    old -= old % int(args.save_every_n_steps)
    if old > 0:
        shutil.rmtree(Path(args.output_dir) / f"{args.output_name}-step{old:08d}-state", ignore_errors=True)
