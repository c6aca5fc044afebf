"""What the trainer's processes, one a GPU, know together."""

import sys
from collections.abc import Iterable
from typing import Any


def means(accelerator: Any, numbers: list[float]) -> list[float]:
    """Over all processes, each of which must come here at the same step."""
    if accelerator.num_processes == 1:
        return numbers
    torch = loaded_torch()
    values = torch.tensor(numbers, dtype=torch.float32, device=accelerator.device) if torch else numbers
    return [float(value) for value in accelerator.reduce(values, reduction="mean")]


def gathered(accelerator: Any, own: Any) -> list[Any]:
    """What each process has, in their order; all must come here at the same step. Without torch this one's alone."""
    torch = loaded_torch()
    if accelerator.num_processes == 1 or not torch:
        return [own]
    found: list[Any] = [None] * int(accelerator.num_processes)
    torch.distributed.all_gather_object(found, own)
    return found


def are_finite(parameters: Iterable[Any]) -> bool:
    """Of this process: whether no number of these tensors, or numpy's arrays, is infinite or none at all."""
    if torch := loaded_torch():
        # The GPU is waited for once, not once a tensor.
        found = [parameter.detach().isfinite().all() for parameter in parameters]
        return not found or bool(torch.stack(found).all())
    import numpy

    return all(bool(numpy.isfinite(parameter).all()) for parameter in parameters)


def loaded_torch() -> Any:
    """None where the trainer has not imported it: the stand-in for Kohya has none."""
    return sys.modules.get("torch")
