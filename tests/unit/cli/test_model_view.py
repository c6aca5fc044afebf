"""A LoRA is judged by its tensors, not by its size."""

import json
import struct

import numpy
import pytest
from safetensors.numpy import save

from local.cli.model_view import examine


def lora(up: float = 0.5, down: float = 0.25, rank: int = 4, dtype: str = "float16") -> bytes:
    return save(
        {
            "lora_unet_a.lora_down.weight": numpy.full((rank, 8), down, dtype=dtype),
            "lora_unet_a.lora_up.weight": numpy.full((8, rank), up, dtype=dtype),
            "lora_unet_a.alpha": numpy.array(2.0, dtype=dtype),
        },
        metadata={"rehearsal": "true"},
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_trained_lora_is_sound(dtype: str) -> None:
    model = examine("s3://b/k", lora(dtype=dtype))
    assert model.is_sound
    assert (model.tensors, model.ranks, model.not_finite) == (3, (4,), 0)
    assert model.is_rehearsal


def test_a_lora_with_one_nan_tensor_is_not() -> None:
    model = examine("s3://b/k", lora(up=float("nan")))
    assert model.not_finite == 1
    assert not model.is_sound


def test_a_lora_that_never_learnt_is_not() -> None:
    """Its lora_down are random from the start; its lora_up begin at zero and still are."""
    model = examine("s3://b/k", lora(up=0.0))
    assert model.all_zero
    assert not model.is_sound


def test_a_file_without_lora_modules_is_not() -> None:
    assert not examine("s3://b/k", save({"other": numpy.ones(3, dtype="float32")})).is_sound


def test_bfloat16_is_read_as_the_upper_half_of_a_float32() -> None:
    one_and_minus_two = struct.pack("<HH", 0x3F80, 0xC000)
    header = json.dumps({"a.lora_up.weight": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [0, 4]}})
    content = struct.pack("<Q", len(header)) + header.encode() + one_and_minus_two
    assert not examine("s3://b/k", content).all_zero
    not_a_number = content[:-2] + struct.pack("<H", 0x7FC0)
    assert examine("s3://b/k", not_a_number).not_finite == 1
