"""Shortens what comes before the pictures are encoded. What fails here, the trainer does in its own way.

Written for sd-scripts 2e0fcc5, whose functions are wrapped where they are looked up; docs/benchmarks.md tells what each
item takes.
"""

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any


@contextmanager
def importing() -> Iterator[None]:
    """Imports leave half a million objects that are never garbage. Python's collector does not look through them while
    they come, nor ever after: the trainer calls it for each batch of pictures, at a third of a second.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class EarlyCheckpoint:
    """The base model's tensors, read by a thread while Python imports the trainer.

    The trainer itself begins after its imports. It names the GPU by a torch.device, which safetensors refuses, so that
    it reads into memory, makes fp32 of it there, and copies twice as much to the GPU.
    """

    def __init__(self, path: str, read: Callable[[], dict[str, Any]]) -> None:
        self._path, self._read = os.path.realpath(path), read
        self._tensors: dict[str, Any] | None = None
        # No daemon: a trainer that ends at once must not end amid a copy to the GPU.
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._tensors = self._read()
        except Exception as error:  # the trainer reads it again, and tells of its fault
            print(f"acceleration: base model not read early ({type(error).__name__}: {error})", flush=True)

    def take(self, filename: str, device: Any) -> dict[str, Any] | None:
        """All tensors, once, for the file and a GPU; None where the trainer has to read."""
        if os.path.realpath(filename) != self._path or not str(device).startswith("cuda"):
            return None
        self._thread.join()
        tensors, self._tensors = self._tensors, None
        return tensors

    def drop(self) -> None:
        """Gives the GPU's memory back, should nobody have taken them."""
        self._thread.join()
        self._tensors = None


def read_early(path: str | None) -> EarlyCheckpoint | None:
    """Straight into this process's GPU; None where `path` is not a .safetensors or there is no GPU."""
    if not path or not path.endswith(".safetensors") or not Path(path).is_file():
        return None
    # Here, not in the thread: two threads that import at a time may see each other's halves.
    import torch
    from safetensors.torch import load_file

    if not torch.cuda.is_available():
        return None
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"

    def read() -> dict[str, Any]:
        tensors: dict[str, Any] = load_file(path, device=device)
        _wake(torch, device)
        return tensors

    return EarlyCheckpoint(path, read)


def _wake(torch: Any, device: str) -> None:
    """The libraries of convolutions and products take a second to load at their first use."""
    image, square = torch.zeros((1, 8, 16, 16), device=device), torch.zeros((64, 64), device=device)
    torch.nn.functional.conv2d(image, image[:, :, :3, :3].repeat(8, 1, 1, 1))
    torch.mm(square.bfloat16(), square.bfloat16())


def hand_over(early: EarlyCheckpoint, model_util: Any, train_util: Any, torch: Any) -> None:
    """To the trainer's loader (library.sdxl_model_util, library.sdxl_train_util)."""
    read, load = model_util.load_file, train_util.load_target_model

    @wraps(read)
    def load_file(filename: str, device: Any = "cpu") -> Any:
        tensors = early.take(filename, device)
        return read(filename, device=device) if tensors is None else tensors

    @wraps(load)
    def load_target_model(*given: Any, **named: Any) -> Any:
        # accelerate empties the GPU's cache for each of 2,500 tensors. torch does so by itself where memory ends.
        empty = torch.cuda.empty_cache
        torch.cuda.empty_cache = lambda: None
        try:
            return load(*given, **named)
        finally:
            torch.cuda.empty_cache = empty
            early.drop()
            empty()

    model_util.load_file = load_file
    train_util.load_target_model = load_target_model
