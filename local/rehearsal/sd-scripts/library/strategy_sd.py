"""Kohya's names for latents that are kept as files."""

from pathlib import Path
from typing import Any

import numpy as np


class SdSdxlLatentsCachingStrategy:
    """As much of Kohya's as the stand-in uses; its files hold the same key."""

    def get_latents_npz_path(self, absolute_path: str, image_size: tuple[int, int]) -> str:
        """Beside the image, by its name and size."""
        width, height = image_size
        return f"{Path(absolute_path).with_suffix('')}_{width:04d}x{height:04d}_sdxl.npz"

    def save_latents_to_disk(self, npz_path: str, latents_tensor: Any) -> None:
        """One image's."""
        np.savez(npz_path, latents=latents_tensor)
