"""Options that the trainer refuses together, ignores, or takes to no good: each rule is broken by a configuration."""

from __future__ import annotations

from typing import Any

import pytest

from fine_tuning import configuration, trainer_rules
from fine_tuning.manifest import Manifest
from fine_tuning.trainer_rules import OLDER_RULES, RULES, Rule

STOPS, IGNORED, HARMFUL = "options-contradict", "options-ignored", "options-harmful"
ADAFACTOR = {"optimizer_type": "Adafactor"}
PRODIGY = {"optimizer_type": "Prodigy", "learning_rate": 1.0}

# What a user writes over sdxl-character, the rule's code, and what its message says.
BROKEN: list[tuple[dict[str, Any], str, str]] = [
    ({"adaptive_noise_scale": 0.1}, STOPS, "needs noise_offset"),
    ({"scale_v_pred_loss_like_noise_pred": True}, STOPS, "goes with v_parameterization"),
    ({"v_pred_like_loss": 0.1, "v_parameterization": True}, STOPS, "cannot go with v_parameterization"),
    ({"use_8bit_adam": True, "use_lion_optimizer": True}, STOPS, "use_8bit_adam cannot go with"),
    ({"use_8bit_adam": True, "optimizer_type": "Lion"}, STOPS, "cannot go with optimizer_type"),
    ({"fused_backward_pass": True}, STOPS, "fused_backward_pass works with"),
    (
        {"fused_backward_pass": True, **ADAFACTOR, "gradient_accumulation_steps": 2},
        STOPS,
        "fused_backward_pass works",
    ),
    ({"full_fp16": True}, STOPS, "full_fp16 needs"),
    ({"full_bf16": True, "mixed_precision": "fp16"}, STOPS, "full_bf16 needs"),
    ({"fp8_base": True, "mixed_precision": "no"}, STOPS, "fp8_base and fp8_base_unet need"),
    ({"lr_scheduler": "constant", "lr_warmup_steps": 10}, STOPS, "lr_warmup_steps cannot go"),
    ({**ADAFACTOR, "lr_warmup_steps": 10}, STOPS, "lr_warmup_steps cannot go"),
    (
        {"network_module": "networks.dylora", "network_train_unet_only": False},
        STOPS,
        "both text encoders the same names",
    ),
    ({"lr_scheduler": "adafactor"}, STOPS, "lr_scheduler adafactor goes"),
    ({"lr_scheduler": "piecewise_constant"}, STOPS, "needs step_rules"),
    ({"lr_scheduler": "cosine_with_min_lr"}, STOPS, "needs lr_scheduler_min_lr_ratio"),
    (
        {"max_data_loader_n_workers": 0, "persistent_data_loader_workers": True},
        STOPS,
        "needs at least one worker",
    ),
    (
        {"network_train_text_encoder_only": True, "network_train_unet_only": True},
        STOPS,
        "leave nothing to train",
    ),
    (
        {**PRODIGY, "unet_lr": 1.0, "text_encoder_lr": 0.5},
        STOPS,
        "learning rate and the text encoders' differ",
    ),
    ({**PRODIGY, "network_args": ["loraplus_lr_ratio=16"]}, STOPS, "which loraplus_* and *_lr_weight"),
    ({"cpu_offload_checkpointing": True}, STOPS, "cpu_offload_checkpointing is for Flux"),
    ({"min_timestep": 500, "max_timestep": 500}, STOPS, "min_timestep is not below"),
    ({"resolution": "1000,1000", "enable_bucket": False}, STOPS, "a multiple of 32"),
    ({"network_module": "networks.dylora", "network_args": ["conv_dim=8"]}, STOPS, "networks.dylora wants"),
    ({"network_module": "networks.dylora", "network_args": ["unit=5"]}, STOPS, "networks.dylora wants"),
    ({"dataset_repeats": 4}, IGNORED, "dataset_repeats"),
    ({"clip_skip": 2}, IGNORED, "clip_skip"),
    ({"keep_tokens": 1}, IGNORED, "keep_tokens"),
    (
        {"cache_text_encoder_outputs": True, "caption_dropout_every_n_epochs": 2},
        IGNORED,
        "caption_dropout_every_n_epochs",
    ),
    ({"token_warmup_min": 2}, IGNORED, "token_warmup_min"),
    (
        {"text_encoder_lr": 1e-5, "network_train_unet_only": True},
        IGNORED,
        "text_encoder_lr does nothing with network_train_unet_only",
    ),
    ({"text_encoder_lr": [5e-5, 1e-5]}, IGNORED, "Of the rates in text_encoder_lr the first one counts"),
    ({"text_encoder_lr": [0, 1e-5]}, IGNORED, "Of the rates in text_encoder_lr the first one counts"),
    (
        {"network_train_text_encoder_only": True, "network_train_unet_only": False, "unet_lr": 1e-4},
        IGNORED,
        "unet_lr does nothing with network_train_text_encoder_only",
    ),
    ({**ADAFACTOR, "unet_lr": 1e-4}, IGNORED, "unet_lr does nothing with Adafactor's own rate"),
    (
        {**ADAFACTOR, "text_encoder_lr": 1e-4, "network_train_unet_only": False},
        IGNORED,
        "text_encoder_lr does nothing with Adafactor's own rate",
    ),
    *(
        (
            {"optimizer_type": "AdamWScheduleFree", name: value},
            IGNORED,
            f"{name} does nothing with an optimizer that needs no schedule",
        )
        for name, value in {
            "lr_scheduler": "linear",
            "lr_scheduler_args": ["last_epoch=-1"],
            "lr_warmup_steps": 10,
        }.items()
    ),
    ({**ADAFACTOR, "lr_scheduler": "linear"}, IGNORED, "lr_scheduler does nothing with Adafactor's own rate"),
    (
        {**ADAFACTOR, "lr_scheduler_args": ["num_cycles=1"]},
        IGNORED,
        "lr_scheduler_args does nothing with Adafactor's own rate",
    ),
    ({"max_train_steps": 10, "max_train_epochs": 1}, IGNORED, "max_train_steps"),
    *(
        ({name: value, "enable_bucket": False}, IGNORED, f"{name} does nothing without enable_bucket")
        for name, value in {
            "min_bucket_reso": 512,
            "max_bucket_reso": 2048,
            "bucket_reso_steps": 32,
            "bucket_no_upscale": True,
        }.items()
    ),
    ({"min_bucket_reso": 512, "bucket_no_upscale": True}, IGNORED, "min_bucket_reso does nothing with"),
    ({"max_bucket_reso": 2048, "bucket_no_upscale": True}, IGNORED, "max_bucket_reso does nothing with"),
    ({"huber_schedule": "constant"}, IGNORED, "huber_schedule"),
    ({"huber_c": 0.2}, IGNORED, "huber_c"),
    ({"huber_scale": 2.0}, IGNORED, "huber_scale"),
    ({"noise_offset_random_strength": True}, IGNORED, "noise_offset_random_strength"),
    ({"multires_noise_discount": 0.2}, IGNORED, "multires_noise_discount"),
    ({"ip_noise_gamma_random_strength": True}, IGNORED, "ip_noise_gamma_random_strength"),
    ({"lr_scheduler_num_cycles": 2}, IGNORED, "lr_scheduler_num_cycles"),
    ({"lr_scheduler_power": 2}, IGNORED, "lr_scheduler_power"),
    ({"lr_scheduler_timescale": 2}, IGNORED, "lr_scheduler_timescale"),
    ({"lr_scheduler_min_lr_ratio": 0.1}, IGNORED, "lr_scheduler_min_lr_ratio"),
    ({"lr_decay_steps": 10}, IGNORED, "lr_decay_steps"),
    ({**ADAFACTOR, "fused_backward_pass": True}, IGNORED, "fused_backward_pass does nothing"),
    ({"no_metadata": True}, IGNORED, "With no_metadata the trainer's own metadata"),
    ({"dynamo_backend": "eager"}, IGNORED, "dynamo_backend"),
    ({"base_weights_multiplier": [1.0]}, IGNORED, "base_weights_multiplier"),
    ({"vae_batch_size": 2, "cache_latents": False}, IGNORED, "vae_batch_size"),
    ({"face_crop_aug_range": "2.0,4.0"}, IGNORED, "face_crop_aug_range"),
    ({"masked_loss": True}, IGNORED, "masked_loss"),
    ({"validate_every_n_epochs": 1}, IGNORED, "validate_every_n_epochs"),
    ({"validate_every_n_steps": 1}, IGNORED, "validate_every_n_steps"),
    ({"max_validation_steps": 1}, IGNORED, "max_validation_steps"),
    ({"validation_seed": 1}, IGNORED, "validation_seed"),
    ({"zero_stage": 1}, IGNORED, "zero_stage"),
    ({"zero3_init_flag": True}, IGNORED, "zero3_init_flag"),
    ({"zero3_save_16bit_model": True}, IGNORED, "zero3_save_16bit_model"),
    ({"offload_optimizer_device": "cpu"}, IGNORED, "offload_optimizer_device"),
    ({"offload_param_device": "cpu"}, IGNORED, "offload_param_device"),
    ({"fp16_master_weights_and_gradients": True}, IGNORED, "fp16_master_weights_and_gradients"),
    ({"zero_terminal_snr": True}, HARMFUL, "zero_terminal_snr"),
    ({"optimizer_type": "Prodigy"}, HARMFUL, "multiply the learning rate"),
    (
        {
            "optimizer_type": "DAdaptAdan",
            "learning_rate": 1.0,
            "text_encoder_lr": 0.5,
            "network_train_unet_only": False,
        },
        HARMFUL,
        "knows one learning rate",
    ),
    ({"mixed_precision": "fp16", "no_half_vae": False}, HARMFUL, "SDXL's own VAE"),
    ({"sdpa": False}, HARMFUL, "Without sdpa"),
]
FINE: list[dict[str, Any]] = [
    {"adaptive_noise_scale": 0.1, "noise_offset": 0.05},
    {"full_fp16": True, "mixed_precision": "fp16"},
    {"full_bf16": True},
    {"use_8bit_adam": True},
    {"optimizer_type": "AdamW8bit", "optimizer_args": ["weight_decay=0.1", "betas=(0.9, 0.99)"]},
    {
        **ADAFACTOR,
        "optimizer_args": ["relative_step=False"],
        "lr_scheduler": "constant_with_warmup",
        "lr_warmup_steps": 10,
    },
    PRODIGY,
    {**PRODIGY, "unet_lr": 1.0, "text_encoder_lr": 1.0},
    {**PRODIGY, "unet_lr": 1.0, "text_encoder_lr": 0.0, "network_train_unet_only": False},
    {**PRODIGY, "network_args": ["loraplus_lr_ratio=1"]},
    {
        **PRODIGY,
        "network_args": ["down_lr_weight=0,0,0,0,1,1,1,1,1", "mid_lr_weight=1", "up_lr_weight=zeros+1"],
    },
    {"text_encoder_lr": [5e-5, 5e-5]},
    {"text_encoder_lr": 0},
    {"network_train_text_encoder_only": True},
    {"lr_scheduler": "piecewise_constant", "lr_scheduler_args": ["step_rules='1:10,0.1'"]},
    {"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": 3, "lr_warmup_steps": 0.1},
    {"network_module": "networks.dylora", "network_args": ["conv_dim=32", "unit=4"]},
    {"network_args": ["conv_dim=8", "conv_alpha=4"]},
    {"shuffle_caption": True, "keep_tokens": 1},
    {"resolution": "768,512", "enable_bucket": False},
    {"xformers": True, "sdpa": False},
    {"masked_loss": True, "alpha_mask": True},
    {"max_train_epochs": 3},
    {"clip_skip": 1},
    # The trainer's own defaults: they do nothing, and say nothing else.
    {"huber_schedule": "snr", "huber_c": 0.1, "huber_scale": 1.0, "lr_scheduler_power": 1.0},
    {"min_bucket_reso": 256, "bucket_no_upscale": True, "lr_scheduler_num_cycles": 1},
]


def found(config: dict[str, Any], kohya_version: str = "v25.2.2") -> list[tuple[str, str]]:
    manifest = Manifest.from_document({"version": 1, "config": config})
    resolved = configuration.resolve(manifest, None, kohya_version)
    return [(finding.code, finding.message) for finding in resolved.findings]


@pytest.mark.parametrize(("config", "code", "said"), BROKEN, ids=[said for _, _, said in BROKEN])
def test_a_broken_rule_is_told(config: dict[str, Any], code: str, said: str) -> None:
    assert [message for told, message in found(config) if told == code and said in message]


@pytest.mark.parametrize("config", FINE, ids=str)
def test_what_goes_together_is_not_told(config: dict[str, Any]) -> None:
    assert found(config) == []


@pytest.mark.parametrize(
    "optimizer", ["Prodigy", "DAdaptation", "DAdaptAdamPreprint", "DAdaptAdam", "DAdaptLion", "DAdaptSGD"]
)
@pytest.mark.parametrize(
    "arguments",
    [
        ["down_lr_weight=0.5,1,1,1,1,1,1,1,1"],
        ["mid_lr_weight=0.5"],
        ["mid_lr_weight=1", "up_lr_weight=linear+0.5"],
        ["loraplus_unet_lr_ratio=4"],
    ],
    ids=str,
)
def test_an_optimizer_of_one_rate_stops_at_blocks_and_parts_of_others(
    optimizer: str, arguments: list[str]
) -> None:
    config = {"learning_rate": 1.0, "network_args": arguments}
    assert STOPS in [code for code, _ in found({**config, "optimizer_type": optimizer})]
    for other in ("AdamW", "DAdaptAdan"):
        assert STOPS not in [code for code, _ in found({**config, "optimizer_type": other})]


@pytest.mark.parametrize("rule", RULES, ids=[rule.message[:60] for rule in RULES])
def test_every_rule_is_broken_by_one_of_the_configurations(rule: Rule) -> None:
    assert any(code == rule.code and said in rule.message for _, code, said in BROKEN)


def test_a_rule_of_older_versions_holds_for_them_alone() -> None:
    (rule,) = OLDER_RULES
    assert (rule.code, rule.message) in found({"weighted_captions": True}, "v22.6.2")
    assert found({"weighted_captions": True}) == []


def test_what_only_the_preset_says_is_not_the_users_fault() -> None:
    values = {"full_fp16": True, "mixed_precision": "bf16"}
    assert list(trainer_rules.judge(values, {}, "v25.2.2")) == []
    (told,) = trainer_rules.judge(values, {"full_fp16": "kohya-sdxl-config.toml"}, "v25.2.2")
    assert told.path == "kohya-sdxl-config.toml"
