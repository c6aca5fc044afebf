"""The trainer's options that an image's latents are made with, no other one of which changes them, and those by which
they are kept.

Read in sd-scripts 2e0fcc5. container/kohya_trainer owns this file, by which kept latents are named;
functions/fine_tuning, which looks for an earlier run's by it, holds a copy, byte for byte.
"""

from collections.abc import Collection, Mapping
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

# Pictures that change between epochs have no latents that stay.
FORBID_CACHED_LATENTS = ("color_aug", "random_crop", "face_crop_aug_range")
# Fewer are encoded again in ten seconds.
LEAST_IMAGES_TO_KEEP = 100


def latent_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that say something: a flag that is off does not, a seed of 0 does."""
    said = {name: options.get(name) for name in LATENT_OPTIONS}
    return {name: value for name, value in said.items() if value is not None and value is not False}


def cacheable(options: Mapping[str, Any], chosen_by_user: Collection[str]) -> bool:
    """Whether latents may be cached where the user's options do not say so."""
    # Whoever says that nothing is cached does not mean the disk either: with it, the trainer caches all the same.
    unwanted = "cache_latents" in chosen_by_user and not options.get("cache_latents")
    return not unwanted and not any(options.get(name) for name in FORBID_CACHED_LATENTS)


def kept(options: Mapping[str, Any], chosen_by_user: Collection[str], images: int) -> bool:
    """Whether the trainer, on one host, writes latents to files and looks for them there.

    images: files whose latents are cached.
    """
    if options.get("cache_latents_to_disk") or "cache_latents_to_disk" in chosen_by_user:
        return bool(options.get("cache_latents_to_disk"))
    return cacheable(options, chosen_by_user) and images >= LEAST_IMAGES_TO_KEEP
