"""What the GPU of a SageMaker instance can compute with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fine_tuning.findings import Finding, error, note
from fine_tuning.run import MANIFEST_NAME

_WITHOUT_GPU = re.compile(r"(?:c|m|r|t|i|inf|trn|dl)[0-9].*")  # AWS' own accelerators among them
# AMD's GPU of g4ad; g5g has an Arm processor, for which the image is not built.
_WITHOUT_CUDA = ("g4ad", "g5g")
# Before Ampere: K80, V100, M60, T4. docs.nvidia.com, CUDA programming guide, "Arithmetic Instructions", bfloat16.
_WITHOUT_BF16 = ("p2", "p3", "p3dn", "g3", "g3s", "g4dn")


def family(instance_type: str) -> str:
    """`ml.g5.8xlarge` → `g5`."""
    return instance_type.split(".")[1] if instance_type.count(".") > 1 else ""


def check(instance_types: Sequence[str]) -> list[Finding]:
    """An error for each instance type that has no GPU for the trainer."""
    return [
        error(
            "instance-without-gpu",
            MANIFEST_NAME,
            f"{one} has no NVIDIA GPU that the training image runs on.",
            "Name one with an NVIDIA GPU, such as ml.g5.2xlarge or ml.g6.2xlarge.",
        )
        for one in instance_types
        if _WITHOUT_GPU.fullmatch(family(one)) or family(one) in _WITHOUT_CUDA
    ]


def fit_precision(
    values: dict[str, Any], instance_types: Sequence[str], written: dict[str, str]
) -> list[Finding]:
    """bf16 on a GPU without it: an error where a user asks for it, fp16 instead where only the preset does.

    Args:
        values: resolved options, changed where the preset alone decided.
        written: option → the file in which a user set it.
    """
    older = [one for one in instance_types if family(one) in _WITHOUT_BF16]
    if not older or not (values.get("mixed_precision") == "bf16" or values.get("full_bf16")):
        return []
    asked = next((name for name in ("full_bf16", "mixed_precision") if name in written), None)
    if asked:
        message = f"{asked} asks for bf16; the GPU of {older[0]} computes it by emulation, many times slower."
        remedy = "Set mixed_precision to fp16, or name an instance with an A10G, L4 or newer GPU."
        return [error("precision-unsupported", written[asked], message, remedy)]
    values["mixed_precision"] = "fp16"
    if "save_precision" not in written and values.get("save_precision") == "bf16":
        values["save_precision"] = "fp16"
    message = f"The preset's bf16 becomes fp16, because the GPU of {older[0]} has no bf16."
    return [note("precision-changed", MANIFEST_NAME, message, "Name an instance with a newer GPU for bf16.")]
