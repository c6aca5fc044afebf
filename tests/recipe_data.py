"""The options of the preset `sdxl-character` on which a recipe hangs, for the tests of both halves."""

from typing import Any

CHARACTER: dict[str, Any] = {
    "network_dim": 32,
    "network_train_unet_only": True,
    "cache_text_encoder_outputs": True,
    "cache_latents": True,
    "optimizer_type": "AdamW",
    "train_batch_size": 4,
    "learning_rate": 1e-4,
    "sdpa": True,
}
MEGAPIXEL = 1024 * 1024
NOBODY: frozenset[str] = frozenset()
