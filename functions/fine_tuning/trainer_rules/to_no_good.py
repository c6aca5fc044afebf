"""Options that the trainer takes although nobody means what comes of them."""

from __future__ import annotations

from fine_tuning.trainer_rules.facts import finds_its_own_rate, knows_one_rate, learning_rates, rates
from fine_tuning.trainer_rules.rule import harmful

HARMFUL = (
    harmful(
        ("zero_terminal_snr",),
        lambda v: v.get("zero_terminal_snr") and not v.get("v_parameterization"),
        "zero_terminal_snr without v_parameterization: the trainer calls the result unexpected.",
        "Remove it, or set v_parameterization for a base model of that kind.",
    ),
    harmful(
        ("optimizer_type", "learning_rate", "unet_lr"),
        lambda v: finds_its_own_rate(v) and max(rates(v), default=0.0) <= 0.1,
        "D-Adaptation and Prodigy multiply the learning rate that they find with the one that is set.",
        "Set learning_rate to 1.0.",
    ),
    harmful(
        ("optimizer_type", "unet_lr", "text_encoder_lr"),
        lambda v: finds_its_own_rate(v) and not knows_one_rate(v) and len(learning_rates(v)) > 1,
        "D-Adaptation knows one learning rate; that of the first group counts.",
        "Set unet_lr and text_encoder_lr to the same, or learning_rate alone.",
    ),
    harmful(
        ("mixed_precision", "no_half_vae"),
        lambda v: v.get("mixed_precision") == "fp16" and not v.get("no_half_vae"),
        "SDXL's own VAE gives NaN in half precision, and the trainer stops while it caches latents.",
        "Set no_half_vae to true, unless the base model brings a VAE that was repaired for it.",
    ),
    harmful(
        ("sdpa", "xformers", "mem_eff_attn"),
        lambda v: not any(v.get(name) for name in ("sdpa", "xformers", "mem_eff_attn")),
        "Without sdpa, xformers or mem_eff_attn attention takes several times the memory and the time.",
        "Set sdpa to true.",
    ),
)
