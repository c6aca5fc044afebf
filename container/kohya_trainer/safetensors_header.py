"""The header of a safetensors file: https://github.com/huggingface/safetensors#format.

The first 8 bytes are the header's length N (little endian), the next N bytes JSON; behind it lie the tensors' bytes.
"""

import json
import os
from typing import Any, BinaryIO

LENGTH_BYTES = 8


def read_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Name → {"dtype", "shape", "data_offsets"}, and `__metadata__`; where the tensors' bytes begin, where the file
    then is.

    Raises:
        ValueError: it has no such header.
    """
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if not 0 < length <= os.fstat(file.fileno()).st_size - LENGTH_BYTES:
        raise ValueError(f"a header of {length} bytes does not fit the file")
    header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")
    return header, LENGTH_BYTES + length
