"""The LoRA that a run made, opened: is it really a model?"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy
from safetensors import deserialize

DOWN = ".lora_down.weight"


@dataclass(frozen=True)
class Model:
    """`ranks` are the different ranks among its modules, smallest first."""

    uri: str
    size: int
    tensors: int
    ranks: tuple[int, ...]
    not_finite: int
    all_zero: bool
    metadata: Mapping[str, str]

    @property
    def is_sound(self) -> bool:
        return self.tensors > 0 and bool(self.ranks) and self.not_finite == 0 and not self.all_zero

    @property
    def is_rehearsal(self) -> bool:
        """Trained by the stand-in that runs on a CPU."""
        return self.metadata.get("rehearsal") == "true"


def open_model(s3: Any, uri: str) -> Model:
    """Download `s3://bucket/key` and read every tensor."""
    place = urlsplit(uri)
    content: bytes = s3.get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))["Body"].read()
    return examine(uri, content)


def examine(uri: str, content: bytes) -> Model:
    tensors = {name: values_of(tensor) for name, tensor in deserialize(content)}
    ranks = {values.shape[0] for name, values in tensors.items() if name.endswith(DOWN)}
    return Model(
        uri,
        size=len(content),
        tensors=len(tensors),
        ranks=tuple(sorted(ranks)),
        not_finite=sum(not bool(numpy.isfinite(values).all()) for values in tensors.values()),
        # Kohya begins with every lora_up at zero: a model whose lora_up still are zero has learnt nothing.
        all_zero=not any(bool(values.any()) for name, values in tensors.items() if ".lora_up." in name),
        metadata=metadata_of(content),
    )


def values_of(tensor: Mapping[str, Any]) -> Any:
    """As float32; numpy knows no bfloat16, which is the upper half of a float32."""
    if tensor["dtype"] == "BF16":
        halves = numpy.frombuffer(tensor["data"], dtype="<u2").astype("<u4")
        flat = (halves << 16).view("<f4")
    else:
        flat = numpy.frombuffer(
            tensor["data"], dtype={"F16": "<f2", "F32": "<f4", "F64": "<f8"}[tensor["dtype"]]
        )
    return flat.reshape(tensor["shape"])


def metadata_of(content: bytes) -> dict[str, str]:
    """The header's `__metadata__`: eight bytes of length, then JSON."""
    (length,) = struct.unpack("<Q", content[:8])
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    return {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}
