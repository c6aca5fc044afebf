"""The random numbers of every process, saved beside a state and given back after a restart, in the form of accelerate's
checkpointing.py, which does so for the main process alone.
"""

import random
from collections.abc import Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from kohya_trainer.hooks.data_order import SEEDS_APART
from kohya_trainer.hooks.processes import gathered


def gathered_random_states(torch: Any, accelerator: Any) -> list[dict[str, Any]]:
    """Of all processes, which must all ask for them: accelerate saves those of the one that saves, the main one."""
    if accelerator.num_processes == 1:
        return []
    return gathered(accelerator, _random_state(torch))


def write_random_states(torch: Any, state: Path, states: Sequence[Mapping[str, Any]]) -> None:
    """Those of the other processes, beside accelerate's own file and in its form."""
    for index, numbers in enumerate(states[1:], 1):
        torch.save(numbers, _file(state, index))


def count_batches_anew(accelerate_accelerator: Any) -> None:
    """accelerate 0.33.0 wants the count of batches from the file of random numbers, which torch.load refuses since 2.6
    (a KeyError: 'step' in place of a restart). It counts within a step alone, and a state lies between steps.
    """
    load = accelerate_accelerator.load_accelerator_state

    @wraps(load)
    def loaded(*state: Any, **more: Any) -> dict[str, Any]:
        return {"step": 0, **load(*state, **more)}

    accelerate_accelerator.load_accelerator_state = loaded


def log_without_drawing(rich_style: Any) -> None:
    """Rich 13 numbers its styles with Python's own random numbers, from which every process of a DyLoRA draws the rank
    that is trained: those of the main process, which alone logs, would no longer be the others'.
    """
    rich_style.randint = random.Random().randint


def restore_random_state(torch: Any, state: Path, process_index: int, step: int) -> None:
    """What was saved. accelerate's own loader fails without a word where torch.load refuses pickles (torch ≥ 2.6).

    A process without a file gets numbers that differ from the others' and from those seen before.
    """
    file = _file(state, process_index)
    if not file.is_file():
        torch.manual_seed(SEEDS_APART * step + process_index)
        return
    import numpy

    # Written by this very run and checked by its digest before the trainer was started.
    states = torch.load(file, map_location="cpu", weights_only=False)
    random.setstate(states["random_state"])
    numpy.random.set_state(states["numpy_random_seed"])
    torch.set_rng_state(states["torch_manual_seed"])
    if torch.cuda.is_available():
        on_gpus, own = states["torch_cuda_manual_seed"], torch.cuda.current_device()
        # A process has numbers on its own GPU alone; accelerate saves those of all that it sees.
        if own < len(on_gpus) and on_gpus[own] is not None:
            torch.cuda.set_rng_state(on_gpus[own])


def _random_state(torch: Any) -> dict[str, Any]:
    import numpy

    on_gpus: list[Any] = []
    if torch.cuda.is_available():
        on_gpus = [None] * torch.cuda.device_count()
        on_gpus[torch.cuda.current_device()] = torch.cuda.get_rng_state()
    return {
        "random_state": random.getstate(),
        "numpy_random_seed": numpy.random.get_state(),
        "torch_manual_seed": torch.get_rng_state(),
        "torch_cuda_manual_seed": on_gpus,
    }


def _file(state: Path, process_index: int) -> Path:
    return state / f"random_states_{process_index}.pkl"
