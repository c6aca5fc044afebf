"""Options that do nothing without, or beside, others; the trainer says no word of it."""

from __future__ import annotations

from fine_tuning.trainer_rules.facts import (
    caches_latents,
    caches_text,
    first,
    has_no_schedule,
    scheduler,
    sets_its_own_rate,
    takes_captions_apart,
    without,
)
from fine_tuning.trainer_rules.rule import Rule, ignored

IGNORED = (
    ignored(
        "dataset_repeats", lambda v: True, "in folders", "Name folders <repeats>_<token>, or set `repeats`."
    ),
    ignored(
        "clip_skip", lambda v: v["clip_skip"] > 1, "in SDXL, whose text encoders are read at fixed layers"
    ),
    ignored(
        "keep_tokens", lambda v: not takes_captions_apart(v), "where captions are not shuffled or dropped"
    ),
    ignored("caption_dropout_every_n_epochs", caches_text, "where text encoder outputs are cached"),
    ignored("token_warmup_min", without("token_warmup_step"), "without token_warmup_step"),
    ignored(
        "text_encoder_lr",
        lambda v: v.get("network_train_unet_only") and first(v["text_encoder_lr"]),
        "with network_train_unet_only",
    ),
    Rule(
        "options-ignored",
        ("text_encoder_lr",),
        lambda v: isinstance(v.get("text_encoder_lr"), list) and len(set(v["text_encoder_lr"])) > 1,
        "Of the rates in text_encoder_lr the first one counts, for both text encoders; networks for SDXL know one.",
        "Give one rate.",
    ),
    ignored(
        "unet_lr", lambda v: v.get("network_train_text_encoder_only"), "with network_train_text_encoder_only"
    ),
    *(
        ignored(
            name,
            sets_its_own_rate,
            "with Adafactor's own rate",
            'Add "relative_step=False" to optimizer_args.',
        )
        for name in ("unet_lr", "text_encoder_lr", "lr_scheduler", "lr_scheduler_args")
    ),
    *(
        ignored(name, has_no_schedule, "with an optimizer that needs no schedule")
        for name in ("lr_scheduler", "lr_scheduler_args", "lr_warmup_steps")
    ),
    ignored("max_train_steps", lambda v: v.get("max_train_epochs"), "beside max_train_epochs"),
    *(
        ignored(name, without("enable_bucket"), "without enable_bucket")
        for name in ("min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale")
    ),
    *(
        ignored(name, lambda v: v.get("bucket_no_upscale"), "with bucket_no_upscale")
        for name in ("min_bucket_reso", "max_bucket_reso")
    ),
    *(
        ignored(
            name, lambda v: v.get("loss_type", "l2") in ("l1", "l2"), "without loss_type huber or smooth_l1"
        )
        for name in ("huber_schedule", "huber_c", "huber_scale")
    ),
    ignored("noise_offset_random_strength", without("noise_offset"), "without noise_offset"),
    ignored(
        "multires_noise_discount", without("multires_noise_iterations"), "without multires_noise_iterations"
    ),
    ignored("ip_noise_gamma_random_strength", without("ip_noise_gamma"), "without ip_noise_gamma"),
    ignored(
        "lr_scheduler_num_cycles",
        lambda v: not scheduler("cosine_with_restarts", "cosine_with_min_lr", "warmup_stable_decay")(v),
        "with this lr_scheduler",
    ),
    ignored(
        "lr_scheduler_power", lambda v: not scheduler("polynomial")(v), "without lr_scheduler polynomial"
    ),
    ignored(
        "lr_scheduler_timescale",
        lambda v: not scheduler("inverse_sqrt")(v),
        "without lr_scheduler inverse_sqrt",
    ),
    ignored(
        "lr_scheduler_min_lr_ratio",
        lambda v: not scheduler("cosine_with_min_lr", "warmup_stable_decay")(v),
        "with this lr_scheduler",
    ),
    ignored(
        "lr_decay_steps",
        lambda v: not scheduler("warmup_stable_decay")(v),
        "without lr_scheduler warmup_stable_decay",
    ),
    ignored(
        "fused_backward_pass",
        lambda v: v["fused_backward_pass"],
        "in a LoRA's training, which never asks for it",
    ),
    Rule(
        "options-ignored",
        ("no_metadata",),
        lambda v: v.get("no_metadata"),
        "With no_metadata the trainer's own metadata are left out; the model tells its options and where it comes from "
        "nevertheless (fine_tuning.provenance).",
        'Remove it; to keep names and people\'s words out, set "privacy": true in the manifest.',
    ),
    ignored("dynamo_backend", without("torch_compile"), "without torch_compile"),
    ignored("base_weights_multiplier", lambda v: True, "without base_weights"),
    ignored("vae_batch_size", lambda v: not caches_latents(v), "without cache_latents"),
    ignored(
        "face_crop_aug_range",
        lambda v: v.get("enable_bucket") or caches_latents(v),
        "with enable_bucket or cache_latents",
    ),
    ignored("masked_loss", without("alpha_mask"), "without alpha_mask"),
    *(
        ignored(name, without("validation_split"), "without validation_split")
        for name in (
            "validate_every_n_epochs",
            "validate_every_n_steps",
            "max_validation_steps",
            "validation_seed",
        )
    ),
    *(
        ignored(name, lambda v: True, "without deepspeed")
        for name in (
            *("zero_stage", "zero3_init_flag", "zero3_save_16bit_model", "offload_optimizer_device"),
            *("offload_param_device", "fp16_master_weights_and_gradients"),
        )
    ),
)
