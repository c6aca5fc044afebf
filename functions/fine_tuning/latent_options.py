"""The trainer's options that an image's latents are made with; no other one changes them.

Read in sd-scripts 2e0fcc5. container/kohya_trainer owns this file, by which kept latents are named;
functions/fine_tuning, which looks for an earlier run's by it, holds a copy, byte for byte.
"""

from collections.abc import Mapping
from typing import Any

LATENT_OPTIONS = (
    # What of the image is encoded, in which size: library/train_util.py, BucketManager and trim_and_resize_if_required.
    *("resolution", "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps"),
    *("bucket_no_upscale", "resize_interpolation", "random_crop"),
    # What lies beside them in the file: library/strategy_base.py, _default_cache_batch_latents.
    *("flip_aug", "alpha_mask"),
    # In which precision the VAE works: train_network.py, vae_dtype.
    *("no_half_vae", "mixed_precision"),
    # The VAE answers with a distribution, out of which one sample is drawn: library/strategy_sd.py.
    "seed",
)


def latent_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that say something: a flag that is off does not, a seed of 0 does."""
    said = {name: options.get(name) for name in LATENT_OPTIONS}
    return {name: value for name, value in said.items() if value is not None and value is not False}
