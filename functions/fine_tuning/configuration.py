"""The Kohya configuration of a run.

Manifest `config` over the user's TOML over the preset, judged and resolved.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from fine_tuning import (
    base_model,
    gpu,
    kohya_toml,
    learning_rates,
    option_policy,
    option_values,
    options,
    trainer_rules,
)
from fine_tuning.base_model import NamedModel
from fine_tuning.caption_options import FORBID_CACHED_CAPTIONS
from fine_tuning.file_kinds import CAPTION_EXTENSIONS
from fine_tuning.findings import Finding, error, note, warning
from fine_tuning.manifest import Manifest
from fine_tuning.run import MANIFEST_NAME, TOML_NAME

_PRESETS = Path(__file__).with_name("presets")
# Resolved by the schedule, which knows the dataset: the plan sets the one length that they come to.
_LENGTHS = ("max_train_steps", "max_train_epochs")
CAPTION_EXTENSION = CAPTION_EXTENSIONS[0]
SEED = 1234  # where nobody says one: a run can be repeated


@dataclass(frozen=True)
class Configuration:
    """What the sources say together.

    Attributes:
        values: option → value for config.toml, without paths, which the container sets, and without the
            length, which the plan adds.
        layers: the options of the manifest, the TOML and the preset, each judged, the weightiest first.
        named_model: what the manifest's `config` or the TOML names as the base model, if one does.
        preferred_captions: the extension of the captions that count where an image has several.
        chosen: options that larger_batch.py put into the preset's place.
        epochs: those that are planned where nobody says how long; None where the batch decides about them.
    """

    values: dict[str, Any]
    layers: tuple[dict[str, Any], ...]
    named_model: NamedModel | None
    findings: tuple[Finding, ...]
    preferred_captions: str = CAPTION_EXTENSION
    chosen: Mapping[str, Any] = field(default_factory=dict)
    epochs: int | None = None

    def where(self, option: str) -> str:
        """The file to change: the TOML where it alone sets the option, else the manifest."""
        of_manifest, of_toml, *_ = self.layers
        return TOML_NAME if option in of_toml and option not in of_manifest else MANIFEST_NAME

    @property
    def by_user(self) -> frozenset[str]:
        """Names of the options that the manifest or the TOML sets."""
        return frozenset(name for layer in self.layers[:2] for name in layer)


def resolve(
    manifest: Manifest, toml: bytes | None, kohya_version: str, instance_types: Sequence[str] = ()
) -> Configuration:
    """Every option that is set, by weight, with what is wrong in each source.

    Args:
        toml: None where there is none.
        instance_types: those of the stack, for a manifest that names none.
    """
    table = options.table(kohya_version)
    from_toml, findings = kohya_toml.read(toml)
    sources = {MANIFEST_NAME: dict(manifest.config), TOML_NAME: from_toml}
    layers: list[dict[str, Any]] = []
    for where, given in sources.items():
        findings += _drop_spelt_out_defaults(given, where)
        known, unknown = options.check(given, table, where, kohya_version)
        allowed, reaching = option_policy.apply(known, where, kohya_version)
        kept, unworkable = option_values.check(allowed, where)
        layers.append(kept)
        findings += unknown + reaching + unworkable
    layers.append(options.check(preset(manifest.preset), table, manifest.preset, kohya_version)[0])
    written = {
        name: where
        for where, layer in zip((TOML_NAME, MANIFEST_NAME), layers[1::-1], strict=True)
        for name in layer
    }
    values = _merged(layers)
    if manifest.validation_split is not None:
        findings += _set_validation_split(values, manifest.validation_split, table, kohya_version)
    findings += _give_way_to(layers, values)
    _load_without_processes(layers, values)
    findings += gpu.check(manifest.instance_types)
    findings += gpu.fit_precision(values, manifest.instance_types or instance_types, written)
    judged = {
        **values,
        **{name: layer[name] for layer in layers[1::-1] for name in _LENGTHS if name in layer},
    }
    findings += trainer_rules.judge(judged, written, kohya_version)
    findings += learning_rates.judge(values, written, kohya_version)
    findings += option_values.network_arguments(
        values, written.get("network_args", MANIFEST_NAME), kohya_version
    )
    findings += _keyword_arguments(values, written, kohya_version)
    values |= {"caption_extension": CAPTION_EXTENSION, "save_model_as": "safetensors"}
    values.setdefault("seed", SEED)
    if values.get("validation_split"):
        # Without it the trainer shuffles once for the images to train on and once more for those to validate with
        # (train_util.py, split_train_val), so that some are both.
        values.setdefault("validation_seed", values["seed"])
    named = ((where, given.get(base_model.OPTION)) for where, given in sources.items())
    named_model = next((NamedModel(str(value), where) for where, value in named if value), None)
    return Configuration(
        values, tuple(layers), named_model, tuple(findings), _preferred_captions(sources.values())
    )


def _keyword_arguments(
    values: Mapping[str, Any], written: Mapping[str, str], kohya_version: str
) -> list[Finding]:
    keywords = options.keywords(kohya_version)
    findings: list[Finding] = []
    for option, taker in trainer_rules.takers(values).items():
        if known := {name.lower(): name for name in keywords[option]}.get(taker.lower()):
            where = written.get(option, MANIFEST_NAME)
            findings += option_values.keyword_arguments(option, known, keywords[option][known], values, where)
    return findings


@cache
def preset(name: str) -> dict[str, Any]:
    return tomllib.loads((_PRESETS / f"{name}.toml").read_text(encoding="utf-8"))


# An option of a weightier source makes those of lighter ones meaningless that were chosen for another value of it:
# AdamW takes none of Adafactor's arguments and the trainer would stop; a learning rate would be overridden unseen.
_REPLACES = {
    "optimizer_type": ("optimizer_args", "use_8bit_adam", "use_lion_optimizer"),
    "use_8bit_adam": ("optimizer_type", "optimizer_args"),
    "use_lion_optimizer": ("optimizer_type", "optimizer_args"),
    "lr_scheduler": ("lr_scheduler_args", "lr_warmup_steps", "lr_decay_steps"),
    "learning_rate": ("unet_lr", "text_encoder_lr"),
    "network_module": ("network_args",),
    "mixed_precision": ("full_fp16", "full_bf16"),
    "network_train_text_encoder_only": ("network_train_unet_only",),
    "network_train_unet_only": ("network_train_text_encoder_only",),
    # The trainer weights the loss by both; and its graphical interface offers one kind of noise or the other.
    "debiased_estimation_loss": ("min_snr_gamma",),
    "multires_noise_iterations": ("noise_offset",),
}


def _merged(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    # Of each option the weight of the weightiest source that names it.
    weights: dict[str, int] = {}
    for weight, layer in enumerate(reversed(layers)):
        for name, value in layer.items():
            weights[name] = weight
            if value == values.get(name):
                continue  # what says what was said before replaces nothing
            # Nor does what is switched off.
            if value is not False and not (name == "multires_noise_iterations" and value == 0):
                for replaced in _REPLACES.get(name, ()):
                    values.pop(replaced, None)
        values |= {name: value for name, value in layer.items() if name not in _LENGTHS}
    # Both encoders learn where nobody says otherwise, so a rate for them is all that a configuration says of it. Only
    # what is left of all sources tells: a weightier one may have replaced the rate, or set it to 0.
    rate, alone = "text_encoder_lr", "network_train_unet_only"
    if rate in values and trainer_rules.first(values[rate]) != 0 and weights[rate] > weights.get(alone, 0):
        values.pop(alone, None)
    return values


# Values that the trainer's own graphical interface writes for "the default", and its parser would refuse.
_SPELT_OUT_DEFAULTS = {"max_token_length": (75, "75"), "dynamo_backend": ("no",)}


def _drop_spelt_out_defaults(given: dict[str, Any], where: str) -> list[Finding]:
    findings: list[Finding] = []
    if given.get("dynamo_backend") in _SPELT_OUT_DEFAULTS["dynamo_backend"]:
        # With that backend it compiles nothing (train_util.py, prepare_accelerator).
        given.pop("torch_compile", None)
    for name, values in _SPELT_OUT_DEFAULTS.items():
        if given.get(name) in values:
            message = f"The option {name} is {given.pop(name)}, the trainer's default; it is left out."
            findings.append(note("option-overridden", where, message))
    return findings


def _preferred_captions(sources: Any) -> str:
    named = (given.get(name) for given in sources for name in ("caption_extension", "caption_extention"))
    return next((one.lower() for one in named if str(one).lower() in CAPTION_EXTENSIONS), CAPTION_EXTENSION)


def _set_validation_split(
    values: dict[str, Any], split: float, table: Mapping[str, options.Option], version: str
) -> list[Finding]:
    if "validation_split" in table:
        values["validation_split"] = split
        return []
    message = f"kohya_ss {version} cannot hold back a validation split; all images are trained on."
    return [warning("option-unknown", MANIFEST_NAME, message, "Remove `validation_split`.")]


# What the trainer refuses: train_util.py, is_latent_cacheable.
_EXCLUDED_BY_CACHED_LATENTS = ("color_aug", "random_crop")


def _give_way_to(layers: Sequence[Mapping[str, Any]], values: dict[str, Any]) -> list[Finding]:
    """Caches that the user's other options exclude: the preset's is switched off, the user's own is an error."""
    findings: list[Finding] = []
    excluded_by_text = [name for name in FORBID_CACHED_CAPTIONS if values.get(name)]
    if not values.get("network_train_unet_only"):
        excluded_by_text.append("training of the text encoders (network_train_unet_only is not set)")
    excluded_by_latents = [name for name in _EXCLUDED_BY_CACHED_LATENTS if values.get(name)]
    for cache_option, excluded in (
        ("cache_text_encoder_outputs", excluded_by_text),
        ("cache_text_encoder_outputs_to_disk", excluded_by_text),  # switches the former on
        ("cache_latents", excluded_by_latents),
        ("cache_latents_to_disk", excluded_by_latents),
    ):
        if not values.get(cache_option) or not excluded:
            continue
        where = next(
            (w for w, one in zip((MANIFEST_NAME, TOML_NAME), layers, strict=False) if one.get(cache_option)),
            None,
        )
        if where is None:
            values[cache_option] = False
            continue
        message = f"{cache_option} cannot go with {' and '.join(excluded)}."
        findings.append(error("options-contradict", where, message, "Remove one of them."))
    return findings


def _load_without_processes(layers: Sequence[Mapping[str, Any]], values: dict[str, Any]) -> None:
    """None can last where the user wants none; what only the preset says gives way, the user's own is an error."""
    by_user = any("persistent_data_loader_workers" in layer for layer in layers[:2])
    if values.get("max_data_loader_n_workers") == 0 and not by_user:
        values["persistent_data_loader_workers"] = False
