"""The trainer's aspect buckets are chosen by the sizes that images have.

It asks imagesize (sd-scripts 2e0fcc5, library/train_util.py, get_image_size). Version 1.4.1 says a pixel too few of
either side of a WebP with EXIF, a colour profile, transparency or frames: with bucket_no_upscale one of 1024 × 1024 is
trained as 960 × 960. Version 1.5 gives a BMP that is stored from the top a negative height, version 2 turns a JPEG as
EXIF says, which the trainer's own decoder does not. So the decoder is asked, as when the run was planned; it reads no
more of a file than its header for that.
"""

from functools import wraps
from typing import Any


def measure_as_decoded(train_util: Any) -> None:
    """Width and height by Pillow; what it cannot open is left to the trainer."""
    from PIL import Image  # in the image beside the trainer, not beside everything that imports the hooks

    measure = train_util.BaseDataset.get_image_size

    @wraps(measure)
    def measured(self: Any, image_path: str) -> tuple[int, int]:
        try:
            with Image.open(image_path) as image:
                return image.size
        except Exception:  # Pillow raises whatever a damaged file makes it
            size: tuple[int, int] = measure(self, image_path)
            return size

    train_util.BaseDataset.get_image_size = measured
