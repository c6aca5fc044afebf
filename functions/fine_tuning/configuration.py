"""The Kohya configuration of a run.

Manifest `config` over the user's TOML over the preset, judged and resolved.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fine_tuning import option_policy, options
from fine_tuning.findings import Finding, error, note, warning
from fine_tuning.manifest import Manifest
from fine_tuning.run import MANIFEST_NAME, TOML_NAME

_PRESETS = Path(__file__).with_name("presets")
# Resolved by the schedule, which knows the dataset: the plan sets the one length that they come to.
_LENGTHS = ("max_train_steps", "max_train_epochs")
_LARGEST_TOML = 1024 * 1024  # bytes
CAPTION_EXTENSION = ".txt"


@dataclass(frozen=True)
class Configuration:
    """What the sources say together.

    Attributes:
        values: option → value for config.toml, without paths, which the container sets, and without the
            length, which the plan adds.
        layers: the options of the manifest, the TOML and the preset, each judged, the weightiest first.
        hub_model: a hub id that the TOML names as its base model, if it does.
    """

    values: dict[str, Any]
    layers: tuple[dict[str, Any], ...]
    hub_model: str | None
    findings: tuple[Finding, ...]


def resolve(manifest: Manifest, toml: bytes | None, kohya_version: str) -> Configuration:
    """Every option that is set, by weight, with what is wrong in each source.

    `toml` is None where there is none.
    """
    table = options.table(kohya_version)
    written, findings = _read_toml(toml)
    layers: list[dict[str, Any]] = []
    for where, given in ((MANIFEST_NAME, dict(manifest.config)), (TOML_NAME, written)):
        findings += _drop_spelt_out_defaults(given, where)
        known, unknown = options.check(given, table, where, kohya_version)
        kept, reaching = option_policy.apply(known, where)
        layers.append(kept)
        findings += unknown + reaching
    layers.append(options.check(preset(manifest.preset), table, manifest.preset, kohya_version)[0])
    values = {
        name: value for layer in reversed(layers) for name, value in layer.items() if name not in _LENGTHS
    }
    if manifest.validation_split is not None:
        findings += _set_validation_split(values, manifest.validation_split, table, kohya_version)
    values["caption_extension"] = CAPTION_EXTENSION
    values["save_model_as"] = "safetensors"
    findings += _contradictions(values, layers)
    return Configuration(values, tuple(layers), _hub_model(written), tuple(findings))


@cache
def preset(name: str) -> dict[str, Any]:
    return tomllib.loads((_PRESETS / f"{name}.toml").read_text(encoding="utf-8"))


def as_toml(values: Mapping[str, Any]) -> bytes:
    """config.toml: flat and sorted, the same bytes for the same options."""
    import tomli_w

    return tomli_w.dumps(dict(sorted(values.items()))).encode()


def _read_toml(content: bytes | None) -> tuple[dict[str, Any], list[Finding]]:
    """The options of the user's file.

    Sections are flattened as the trainer does (train_util.read_config_from_file).
    """
    if content is None:
        return {}, []
    if len(content) > _LARGEST_TOML:
        message = f"The configuration has {len(content)} bytes; {_LARGEST_TOML} is the limit."
        return {}, [error("config-too-large", TOML_NAME, message, "Leave only Kohya's options in it.")]
    try:
        document = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as cause:
        message = f"The configuration is not UTF-8 (byte {cause.start + 1})."
        return {}, [error("config-not-toml", TOML_NAME, message, "Save it as UTF-8.")]
    except (tomllib.TOMLDecodeError, RecursionError) as cause:
        # The reader names no line where the document ends too early.
        lines = content.count(b"\n") + 1
        last = f"at the end, line {lines}"
        reason = _first_line(cause).replace("at end of document", last)
        message = f"The configuration is not TOML: {reason}."
        return {}, [
            error(
                "config-not-toml", TOML_NAME, message, "Correct it there, for example quote the text values."
            )
        ]
    flat: dict[str, Any] = {}
    for name, value in document.items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat, []


# Values that the trainer's own graphical interface writes for "the default", and its parser would refuse.
_SPELT_OUT_DEFAULTS = {"max_token_length": (75, "75")}


def _drop_spelt_out_defaults(given: dict[str, Any], where: str) -> list[Finding]:
    findings: list[Finding] = []
    for name, values in _SPELT_OUT_DEFAULTS.items():
        if given.get(name) in values:
            message = f"The option {name} is {given.pop(name)}, the trainer's default; it is left out."
            findings.append(note("option-overridden", where, message))
    return findings


def _first_line(cause: Exception) -> str:
    return (str(cause).splitlines() or ["nested too deep"])[0][:200]


def _hub_model(written: Mapping[str, Any]) -> str | None:
    """`organisation/model` out of the TOML's base model; a path of another machine says nothing."""
    name = written.get("pretrained_model_name_or_path")
    if not isinstance(name, str) or name.count("/") != 1 or name.startswith(("/", ".", "~")):
        return None
    return name if not name.endswith((".safetensors", ".ckpt")) else None


def _set_validation_split(
    values: dict[str, Any], split: float, table: Mapping[str, options.Option], version: str
) -> list[Finding]:
    if "validation_split" in table:
        values["validation_split"] = split
        return []
    message = f"kohya_ss {version} cannot hold back a validation split; all images are trained on."
    return [warning("option-unknown", MANIFEST_NAME, message, "Remove `validation_split`.")]


# What cannot go together, read in the trainer's own checks: (option, what it excludes, why).
_EXCLUDED_BY_CACHED_CAPTIONS = (
    "shuffle_caption",
    "caption_dropout_rate",
    "caption_dropout_every_n_epochs",
    "caption_tag_dropout_rate",
    "token_warmup_step",
)
_EXCLUDED_BY_CACHED_LATENTS = ("color_aug", "random_crop")


def _contradictions(values: dict[str, Any], layers: list[dict[str, Any]]) -> list[Finding]:
    """Pairs that the trainer stops at.

    Where only the preset asks for the cache, the user's option wins silently.
    """
    findings: list[Finding] = []
    by_user = {**layers[1], **layers[0]}
    trains_text_encoder = not values.get("network_train_unet_only")
    exclusions = (
        ("cache_text_encoder_outputs", [n for n in _EXCLUDED_BY_CACHED_CAPTIONS if values.get(n)]),
        ("cache_text_encoder_outputs", ["text-encoder training"] if trains_text_encoder else []),
        ("cache_latents", [n for n in _EXCLUDED_BY_CACHED_LATENTS if values.get(n)]),
    )
    for cache_option, excluded in exclusions:
        if not values.get(cache_option) or not excluded:
            continue
        if not by_user.get(cache_option):
            values[cache_option] = False
            values.pop(f"{cache_option}_to_disk", None)
            continue
        where = MANIFEST_NAME if cache_option in layers[0] else TOML_NAME
        message = f"{cache_option} cannot go with {' and '.join(excluded)}."
        findings.append(error("options-contradict", where, message, "Remove one of them."))
    return findings
