"""What the trainer's processes, one a GPU, know together."""

import sys
from typing import Any


def means(accelerator: Any, numbers: list[float]) -> list[float]:
    """Over all processes, each of which must come here at the same step."""
    if accelerator.num_processes == 1:
        return numbers
    torch = loaded_torch()
    values = torch.tensor(numbers, dtype=torch.float32, device=accelerator.device) if torch else numbers
    return [float(value) for value in accelerator.reduce(values, reduction="mean")]


def loaded_torch() -> Any:
    """None where the trainer has not imported it: the stand-in for Kohya has none."""
    return sys.modules.get("torch")
