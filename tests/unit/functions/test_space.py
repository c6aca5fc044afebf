"""Whether a dataset and what training writes beside it fit the training volume."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fine_tuning import dataset
from fine_tuning.layout import lay_out
from tests.functions_data import file

IMAGES = 10_000


@pytest.mark.parametrize(
    ("values", "latents"),
    [
        ({"resolution": "1024,1024"}, IMAGES * 262_144),
        ({"resolution": "1024,1024", "flip_aug": True}, IMAGES * 524_288),
        ({"resolution": "512"}, IMAGES * 65_536),
        ({"resolution": "none"}, 0),  # planning tells of it
    ],
)
def test_the_latents_that_training_keeps_need_their_place(values: dict[str, Any], latents: int) -> None:
    room = 50 * 1000**3 - dataset.BESIDE_DATASET - latents

    def codes(size: int) -> list[str]:
        files = [replace(file(f"1_cat/{number}.jpg"), size=0) for number in range(IMAGES)]
        files.append(replace(file("1_cat/0.txt"), size=size))
        layout = lay_out(files, 1, "cat", ".txt")
        found = dataset.judge(files, layout, {"caption_extension": ".txt", **values}, "cat", 50)
        return [each.code for each in found if each.code == "dataset-too-large"]

    assert codes(room) == []
    assert codes(room + 1) == ["dataset-too-large"]
