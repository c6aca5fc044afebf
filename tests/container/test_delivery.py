"""What is delivered beside the tensors: metadata that other tools read, pictures that say what they are."""

import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from kohya_trainer.model_metadata import (
    NAMES_AND_TAGS,
    PROVENANCE,
    delivered_metadata,
    read_metadata,
    tensors_sha256,
    write_with_metadata,
)
from kohya_trainer.png_text import with_text
from kohya_trainer.samples import deliver_samples, picture_size, prompt_lines

FACTS = {"licence": "CC0-1.0", "trigger_word": "sks", "steps": 12}
WRITTEN = {
    "ss_tag_frequency": '{"10_sks cat": {"tabby": 3}}',
    "ss_dataset_dirs": '{"10_sks cat": {}}',
    "ss_network_dim": "8",
    "modelspec.title": "cats",
}


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()


def test_modelspec_fields_and_provenance_are_added_and_the_tensors_stay(tmp_path: Path) -> None:
    model, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"x": np.arange(7, dtype=np.float16)}, model, metadata=WRITTEN)

    write_with_metadata(
        model, target, delivered_metadata(read_metadata(model), FACTS, tensors_sha256(model), private=False)
    )

    with safe_open(target, framework="numpy") as opened:
        metadata = opened.metadata()
        assert (opened.get_tensor("x") == np.arange(7)).all()
    assert metadata["modelspec.license"] == "CC0-1.0"
    assert metadata["modelspec.trigger_phrase"] == "sks"
    assert metadata["modelspec.title"] == "cats"
    assert metadata["ss_tag_frequency"] == WRITTEN["ss_tag_frequency"]
    assert json.loads(metadata[PROVENANCE]) == FACTS
    body = np.arange(7, dtype=np.float16).tobytes()
    assert metadata["modelspec.hash_sha256"] == f"0x{hashlib.sha256(body).hexdigest()}"
    assert tensors_sha256(target) == tensors_sha256(model)


def test_a_private_runs_model_names_neither_tags_nor_folders() -> None:
    told = delivered_metadata(WRITTEN, FACTS, "0", private=True)

    assert not NAMES_AND_TAGS & set(told)
    assert "tabby" not in str(told)
    assert "10_sks cat" not in str(told)
    assert told["ss_network_dim"] == "8"


def test_a_picture_tells_prompt_seed_and_step() -> None:
    picture = Image.open(io.BytesIO(with_text(png(), {"prompt": "sks cat, été", "seed": "7", "step": "40"})))

    assert picture.info == {"prompt": "sks cat, été", "seed": "7", "step": "40"}
    assert picture.getpixel((3, 3)) == (255, 0, 0)


def test_what_is_no_png_is_refused() -> None:
    with pytest.raises(ValueError, match="no PNG"):
        with_text(b"\xff\xd8 a JPEG", {})


@pytest.mark.parametrize("private", [False, True])
def test_samples_are_delivered_by_their_names(tmp_path: Path, private: bool) -> None:
    drawn = tmp_path / "sample"
    drawn.mkdir()
    (drawn / "cats_000040_01_20261124120000_8.png").write_bytes(png())

    assert deliver_samples(drawn, tmp_path / "samples", ["a", "b"], private) == 1

    info = Image.open(tmp_path / "samples" / "cats_000040_01_20261124120000_8.png").info
    assert info == {"step": "40", "seed": "8"} | ({} if private else {"prompt": "b"})


def test_every_prompt_has_a_seed_and_one_line() -> None:
    assert prompt_lines(["# sks\ncat", "dog --d 5 --w 512", "bird"], 100) == [
        "sks cat --d 100",
        "dog --d 5 --w 512",
        "bird --d 102",
    ]
    assert prompt_lines(["dog --D 5"], 100) == ["dog --D 5"]


def test_a_prompt_without_a_size_is_drawn_at_that_of_the_training() -> None:
    assert prompt_lines(["cat", "dog --W 512 --d 5", "bird --d 5 --w 640 --h 640"], 1, (1024, 768)) == [
        "cat --w 1024 --h 768 --d 1",
        "dog --W 512 --d 5 --h 768",
        "bird --d 5 --w 640 --h 640",
    ]


@pytest.mark.parametrize(
    ("resolution", "precision", "memory", "size"),
    [
        ("1024,1024", "bf16", 22.5, (1024, 1024)),
        ("1024", "bf16", None, (1024, 1024)),
        ("768,1000", "bf16", 22.5, (768, 992)),
        ("1024,1024", "fp16", 14.6, None),
        ("512,512", "fp16", 14.6, (512, 512)),
        ("1024,1024", "no", 22.5, None),
        ("1536,1536", "bf16", 22.5, None),
    ],
)
def test_pictures_have_the_size_of_the_training_where_they_can_be_decoded(
    resolution: str, precision: str, memory: float | None, size: tuple[int, int] | None
) -> None:
    options = {"resolution": resolution, "mixed_precision": precision, "network_dim": 32}
    assert picture_size({**options, "network_train_unet_only": True}, memory) == size


def test_no_prompt_names_a_picture_of_the_training_machine() -> None:
    """library/train_util.py, line_to_prompt_dict, whose options are these, at the prompt's own begin, too."""
    prompts = ["dog --cn pose.png --w 512 --d 5", "dog --CN a b.png --d 5", "CN Tower at night --d 5"]
    for line in prompt_lines([*prompts, "n seals --d 5", "cnidarians --d 5"], 100):
        first, *options = line.split(" --")
        assert not re.match(r"(cn|n) ", first, re.IGNORECASE)
        assert not [option for option in options if re.match("cn ", option, re.IGNORECASE)]
        assert options[-1] == "d 5"
    assert prompt_lines(prompts[:1], 100) == ["dog --w 512 --d 5"]
