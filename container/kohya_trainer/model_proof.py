"""Proves that a LoRA file is a trained model: it opens, its modules, rank and alpha are as configured,
its numbers are sane.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from kohya_trainer.errors import UnprovedModelError
from kohya_trainer.lora_modules import NETWORKS, odd_and_missing
from kohya_trainer.safetensors_header import read_header

# LoRA's up-weights start at zero; one AdamW step at a learning rate of 1e-6 already moves a matrix by
# more than this.
LEAST_UP_NORM = 1e-6
PARTS = ("lora_down.weight", "lora_up.weight", "alpha")  # of each module
DEFAULT_RANK = 4  # networks/lora.py when network_dim is not set
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1"}


@dataclass(frozen=True)
class ProvedModel:
    """`up_norm` is the L2 norm of all up-weights together."""

    tensors: int
    modules: int
    rank: int | None
    up_norm: float
    metadata: dict[str, str]


def prove(path: Path, options: Mapping[str, Any]) -> ProvedModel:
    """Raises UnprovedModelError naming the first thing that is wrong. `options` are the run's Kohya
    options.
    """
    metadata, header = _open(path)
    names = sorted(header)
    if not names:
        raise _unproved("The model holds no tensors.")
    up_norms: dict[str, float] = {}
    anything = False
    for name, values in _tensors(path, header):
        if not np.isfinite(values).all():
            raise _unproved(f"The model's tensor {name} holds values that are not finite.")
        if name.endswith(".alpha"):
            _check_alpha(name, values, header, options)
            continue
        norm = float(np.linalg.norm(values.astype(np.float64)))
        anything = anything or norm > 0
        if name.endswith(".lora_up.weight"):
            up_norms[name] = norm
    if not anything:
        raise _unproved("All of the model's weights are zero.")
    rank = None
    if options.get("network_module") in NETWORKS:
        _check_keys(names, options, rehearsal=metadata.get("rehearsal") == "true")
        rank = _check_lora(header, options, up_norms)
    modules = len({name.split(".")[0] for name in names})
    total = float(np.linalg.norm(list(up_norms.values()))) if up_norms else 0.0
    return ProvedModel(tensors=len(names), modules=modules, rank=rank, up_norm=total, metadata=metadata)


def _open(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Metadata, and name → {"dtype", "shape", "data_offsets"}; the library itself judges the file first."""
    try:
        with safe_open(path, framework="numpy") as opened:
            metadata = dict(opened.metadata() or {})
        with path.open("rb") as file:
            header, _ = read_header(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unproved(f"The model {path.name} cannot be opened as safetensors ({error}).") from error
    header.pop("__metadata__", None)
    return metadata, header


def _tensors(path: Path, header: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """One tensor at a time, as numpy arrays; bfloat16, which numpy does not know, becomes float32."""
    with path.open("rb") as file:
        _, data = read_header(file)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            file.seek(data + begin)
            content = file.read(end - begin)
            if entry["dtype"] == "BF16":
                values = (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
            elif entry["dtype"] in _TYPES:
                values = np.frombuffer(content, _TYPES[entry["dtype"]])
            else:
                raise _unproved(
                    f"The model's tensor {name} is of type {entry['dtype']}, which is not expected."
                )
            yield name, values.reshape(entry["shape"])


def _check_keys(names: Collection[str], options: Mapping[str, Any], rehearsal: bool) -> None:
    """Those that the network gives an SDXL model; the stand-in trains a few of its modules."""
    modules = {name.partition(".")[0] for name in names}
    odd, missing = odd_and_missing(modules, options, _network_arguments(options))
    whole = {f"{module}.{part}" for module in modules for part in PARTS}
    if odd or not whole.issuperset(names):
        name = min(name for name in names if name not in whole or name.partition(".")[0] in odd)
        raise _unproved(f"The model holds {name}, which a LoRA of SDXL with these options has not.")
    if lacking := sorted(whole.difference(names)):
        raise _unproved(f"The model lacks {lacking[0]}.")
    if missing and not rehearsal:
        raise _unproved(f"The model lacks {len(missing)} modules that it should hold, such as {missing[0]}.")


def _check_lora(header: Mapping[str, Any], options: Mapping[str, Any], up_norms: Mapping[str, float]) -> int:
    """Shapes and trained parts; returns the rank."""
    unet = [name for name in header if name.startswith("lora_unet_")]
    rank = int(options.get("network_dim") or DEFAULT_RANK)
    for name, entry in header.items():
        if name.endswith(".lora_down.weight") and (wanted := _rank(entry["shape"], options)) not in (
            None,
            entry["shape"][0],
        ):
            raise _unproved(f"{name} has rank {entry['shape'][0]}, configured is {wanted}.")
    if not up_norms or max(up_norms.values()) == 0:
        raise _unproved("All up-weights of the model are zero: nothing was learnt.")
    # The trainer leaves out of its optimizer what has a rate of 0, and saves it nevertheless.
    learns = options.get("unet_lr", options.get("learning_rate")) != 0
    if (
        unet
        and learns
        and (norm := max((up_norms[name] for name in unet if name in up_norms), default=0.0)) < LEAST_UP_NORM
    ):
        raise _unproved(f"The U-Net's up-weights hardly moved (largest norm {norm:.2g}).")
    return rank


def _check_alpha(
    name: str, values: NDArray[Any], header: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    down = header.get(name.removesuffix(".alpha") + ".lora_down.weight")
    if options.get("network_module") not in NETWORKS or down is None or _rank(down["shape"], options) is None:
        return
    arguments = _network_arguments(options)
    wide = _is_wide(down["shape"])
    alpha = float(arguments.get("conv_alpha", 1.0) if wide else options.get("network_alpha", 1.0))
    expected = alpha or float(down["shape"][0])  # Kohya takes 0 for "as the rank"
    if not np.isclose(float(values), expected, rtol=1e-2):
        raise _unproved(f"{name} is {float(values):g}, configured is {expected:g}.")


def _rank(shape: list[int], options: Mapping[str, Any]) -> int | None:
    """The rank that a down-weight of this shape must have; None where the options set it a block at a
    time.
    """
    arguments = _network_arguments(options)
    if options.get("dim_from_weights") or any(
        name.startswith(("block_", "conv_block_", "rank_")) for name in arguments
    ):
        return None
    if _is_wide(shape):
        return int(arguments["conv_dim"]) if "conv_dim" in arguments else None
    return int(options.get("network_dim") or DEFAULT_RANK)


def _is_wide(shape: list[int]) -> bool:
    """A 3×3 convolution, which has a rank and alpha of its own."""
    return len(shape) == 4 and tuple(shape[2:]) != (1, 1)


def _network_arguments(options: Mapping[str, Any]) -> dict[str, str]:
    pairs = (str(argument).partition("=") for argument in options.get("network_args") or [])
    return {name: value for name, _, value in pairs}


def _unproved(cause: str) -> UnprovedModelError:
    return UnprovedModelError(
        cause, "Start the run again; if it fails again, lower learning_rate and read the log."
    )
