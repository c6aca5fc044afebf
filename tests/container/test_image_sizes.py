"""The sizes by which the trainer chooses aspect buckets."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from kohya_trainer.hooks.image_sizes import measure_as_decoded

SIZE = (1201, 903)


class BaseDataset:
    """Says what imagesize 1.4.1 says of a WebP with EXIF."""

    def get_image_size(self, image_path: str) -> tuple[int, int]:
        return (SIZE[0] - 1, SIZE[1] - 1)


@pytest.fixture
def dataset() -> Any:
    class Hooked(BaseDataset):
        get_image_size = BaseDataset.get_image_size

    measure_as_decoded(SimpleNamespace(BaseDataset=Hooked))
    return Hooked()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("suffix", ["webp", "jpg", "png", "bmp"])
def test_an_image_has_the_size_that_it_is_decoded_to(dataset: Any, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", SIZE).save(path, exif=turned())
    assert suffix != "webp" or path.read_bytes()[12:16] == b"VP8X"
    assert dataset.get_image_size(str(path)) == SIZE


def test_what_cannot_be_opened_is_the_trainers(dataset: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    assert dataset.get_image_size(str(tmp_path / "a.jpg")) == (1200, 902)
