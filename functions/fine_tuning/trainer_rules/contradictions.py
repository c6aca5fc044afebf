"""Options that the trainer refuses together, most of them once it has loaded everything."""

from __future__ import annotations

from fine_tuning.option_values import arguments
from fine_tuning.trainer_rules.facts import (
    conv_dim_differs,
    effective_optimizer,
    knows_one_rate,
    learning_rates,
    multiplies_rates,
    odd_resolution,
    scheduler,
    sets_its_own_rate,
)
from fine_tuning.trainer_rules.rule import Rule, stops

_WARMUP = ("lr_warmup_steps", "lr_scheduler", "optimizer_type", "optimizer_args")

CONTRADICTIONS = (
    stops(
        ("adaptive_noise_scale",),
        lambda v: v.get("adaptive_noise_scale") is not None and v.get("noise_offset") is None,
        "adaptive_noise_scale needs noise_offset.",
        "Set noise_offset too, or remove it.",
    ),
    stops(
        ("scale_v_pred_loss_like_noise_pred",),
        lambda v: v.get("scale_v_pred_loss_like_noise_pred") and not v.get("v_parameterization"),
        "scale_v_pred_loss_like_noise_pred goes with v_parameterization only.",
        "Remove it, or set v_parameterization for a base model of that kind.",
    ),
    stops(
        ("v_pred_like_loss", "v_parameterization"),
        lambda v: v.get("v_pred_like_loss") and v.get("v_parameterization"),
        "v_pred_like_loss cannot go with v_parameterization.",
        "Remove one of them.",
    ),
    stops(
        ("use_8bit_adam", "use_lion_optimizer"),
        lambda v: v.get("use_8bit_adam") and v.get("use_lion_optimizer"),
        "use_8bit_adam cannot go with use_lion_optimizer.",
        "Remove both and set optimizer_type.",
    ),
    stops(
        ("use_8bit_adam", "use_lion_optimizer"),
        lambda v: (v.get("use_8bit_adam") or v.get("use_lion_optimizer")) and v.get("optimizer_type"),
        "use_8bit_adam and use_lion_optimizer cannot go with optimizer_type.",
        "Set optimizer_type alone.",
    ),
    stops(
        ("fused_backward_pass", "optimizer_type", "gradient_accumulation_steps"),
        lambda v: (
            v.get("fused_backward_pass")
            and (effective_optimizer(v) != "adafactor" or v.get("gradient_accumulation_steps", 1) > 1)
        ),
        "fused_backward_pass works with optimizer_type Adafactor and gradient_accumulation_steps 1 only.",
        "Remove it.",
    ),
    stops(
        ("full_fp16", "mixed_precision"),
        lambda v: v.get("full_fp16") and v.get("mixed_precision") != "fp16",
        "full_fp16 needs mixed_precision fp16.",
        "Set mixed_precision to fp16, or remove full_fp16.",
    ),
    stops(
        ("full_bf16", "mixed_precision"),
        lambda v: v.get("full_bf16") and not v.get("full_fp16") and v.get("mixed_precision") != "bf16",
        "full_bf16 needs mixed_precision bf16.",
        "Set mixed_precision to bf16, or remove full_bf16.",
    ),
    stops(
        ("fp8_base", "fp8_base_unet", "mixed_precision"),
        lambda v: (v.get("fp8_base") or v.get("fp8_base_unet")) and v.get("mixed_precision", "no") == "no",
        "fp8_base and fp8_base_unet need mixed_precision fp16 or bf16.",
        "Set mixed_precision.",
    ),
    stops(
        _WARMUP,
        lambda v: v.get("lr_warmup_steps") and (scheduler("constant")(v) or sets_its_own_rate(v)),
        "lr_warmup_steps cannot go with a constant rate, nor with Adafactor's own (relative_step).",
        "Set lr_scheduler to constant_with_warmup, or remove lr_warmup_steps.",
    ),
    stops(
        ("lr_scheduler",),
        lambda v: scheduler("adafactor")(v) and not sets_its_own_rate(v),
        "lr_scheduler adafactor goes with optimizer_type Adafactor and relative_step=True only.",
        "Set another lr_scheduler.",
    ),
    stops(
        ("lr_scheduler",),
        lambda v: (
            scheduler("piecewise_constant")(v) and "step_rules" not in arguments(v.get("lr_scheduler_args"))
        ),
        "lr_scheduler piecewise_constant needs step_rules in lr_scheduler_args.",
        "Add for example \"step_rules='1:100,0.1'\", or set another lr_scheduler.",
    ),
    stops(
        ("lr_scheduler",),
        lambda v: (
            scheduler("cosine_with_min_lr")(v)
            and v.get("lr_scheduler_min_lr_ratio") is None
            and "min_lr" not in arguments(v.get("lr_scheduler_args"))
        ),
        "lr_scheduler cosine_with_min_lr needs lr_scheduler_min_lr_ratio.",
        "Set it, for example to 0.1.",
    ),
    stops(
        ("persistent_data_loader_workers", "max_data_loader_n_workers"),
        lambda v: v.get("persistent_data_loader_workers") and v.get("max_data_loader_n_workers", 8) == 0,
        "persistent_data_loader_workers needs at least one worker (max_data_loader_n_workers).",
        "Set persistent_data_loader_workers to false, or max_data_loader_n_workers to 1 or more.",
    ),
    stops(
        ("network_train_unet_only", "network_train_text_encoder_only"),
        lambda v: v.get("network_train_unet_only") and v.get("network_train_text_encoder_only"),
        "network_train_unet_only and network_train_text_encoder_only together leave nothing to train.",
        "Set one of them to false.",
    ),
    stops(
        ("unet_lr", "text_encoder_lr", "optimizer_type"),
        lambda v: knows_one_rate(v) and len(learning_rates(v)) > 1,
        "The U-Net's learning rate and the text encoders' differ, at which Prodigy and this D-Adaptation stop.",
        "Set unet_lr and text_encoder_lr to the same, or learning_rate alone.",
    ),
    stops(
        ("network_args", "optimizer_type"),
        lambda v: knows_one_rate(v) and multiplies_rates(v),
        "Prodigy and this D-Adaptation stop at different learning rates, which loraplus_* and *_lr_weight in "
        "network_args make.",
        "Remove these arguments, or set another optimizer_type.",
    ),
    stops(
        ("cpu_offload_checkpointing",),
        lambda v: v.get("cpu_offload_checkpointing"),
        "cpu_offload_checkpointing is for Flux; the U-Net of SDXL does not know it.",
        "Remove it.",
    ),
    stops(
        ("min_timestep", "max_timestep"),
        lambda v: v.get("min_timestep", 0) >= v.get("max_timestep", 1000),
        "min_timestep is not below max_timestep.",
        "Correct one of them.",
    ),
    stops(
        ("resolution", "enable_bucket"),
        odd_resolution,
        "Without aspect buckets a resolution must be a multiple of 32; the U-Net cannot halve another one.",
        "Set enable_bucket, or another resolution.",
    ),
    stops(
        ("network_module", "network_train_unet_only"),
        lambda v: v.get("network_module") == "networks.dylora" and not v.get("network_train_unet_only"),
        "networks.dylora gives the modules of both text encoders the same names: one encoder's are lost, and no "
        "program finds the other's.",
        "Set network_train_unet_only to true, or network_module to networks.lora.",
    ),
    stops(
        ("network_module", "network_args", "network_dim"),
        conv_dim_differs,
        "networks.dylora wants conv_dim to be network_dim, and network_dim to be a multiple of unit.",
        "Correct network_args or network_dim.",
    ),
)
# sdxl_train_util.verify_sdxl_training_args, until the scripts became a submodule.
OLDER_RULES: tuple[Rule, ...] = (
    stops(
        ("weighted_captions",),
        lambda v: v.get("weighted_captions"),
        "This version refuses weighted_captions for SDXL.",
        "Remove it, or deploy a newer KohyaVersion.",
    ),
)
