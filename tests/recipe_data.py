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
    "mixed_precision": "bf16",
    "sdpa": True,
}
MEGAPIXEL = 1024 * 1024
# Every option of the trainer that execution.py decides, with a value that it does not choose for CHARACTER on 79 GiB.
USERS_OWN: dict[str, Any] = {
    "cache_latents": False,
    "cache_latents_to_disk": False,
    "cache_text_encoder_outputs": False,
    "gradient_checkpointing": True,
    "highvram": False,
    "lowram": False,
    "max_data_loader_n_workers": 0,
    "optimizer_args": ["weight_decay=0.1"],
    "persistent_data_loader_workers": False,
    "sdpa": False,
    "vae_batch_size": 1,
}
NOBODY: frozenset[str] = frozenset()
