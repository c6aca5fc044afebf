"""The trainer's options with which what the text encoders make of a caption is not cached.

Read in sd-scripts 2e0fcc5. container/kohya_trainer owns this file; functions/fine_tuning holds a copy, byte for byte.
"""

FORBID_CACHED_CAPTIONS = (
    # Refused: library/train_util.py, is_text_encoder_output_cacheable.
    *("shuffle_caption", "caption_dropout_rate", "caption_tag_dropout_rate", "token_warmup_step"),
    # Silently not done: what is cached is the caption as it was read (library/strategy_sdxl.py, cache_batch_outputs),
    # without what train_util.py's process_caption makes of it.
    *("caption_dropout_every_n_epochs", "caption_prefix", "caption_suffix", "enable_wildcard"),
    "secondary_separator",
)
