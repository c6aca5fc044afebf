"""The trainer's option table: every option that its own argument parser declares, per version of kohya_ss.

With a config file the trainer's parser checks nothing: an unknown key does nothing and a value outside the
choices is taken. So both are checked here. container/options owns the tables; kohya_options is the generated
copy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fine_tuning.errors import ConfigurationError
from fine_tuning.findings import Finding, error, warning
from fine_tuning.nearest import did_you_mean

_LONGEST_NUMBER = 40  # characters
_LARGEST_NUMBER = 2**63
_TABLES = Path(__file__).with_name("kohya_options")


@dataclass(frozen=True)
class Option:
    """One option as the trainer declares it.

    Attributes:
        takes_list: its argument may be repeated (nargs).
        default: what counts where nothing is said; None where that is nothing, or said elsewhere.
    """

    name: str
    type: str
    takes_list: bool
    choices: tuple[Any, ...]
    default: Any = None


@cache
def table(kohya_version: str) -> Mapping[str, Option]:
    """Option name → Option, of a kohya_ss tag such as `v25.2.2`."""
    declared: dict[str, dict[str, Any]] = _read(kohya_version)["options"]
    return {
        name: Option(name, one["type"], "nargs" in one, tuple(one.get("choices", ())), one.get("default"))
        for name, one in declared.items()
    }


def is_older(kohya_version: str) -> bool:
    """Whether that kohya_ss has the sd-scripts of early 2024, which lack much that the present ones have."""
    return kohya_version.startswith("v22.")


def keywords(kohya_version: str) -> Mapping[str, Mapping[str, list[str]]]:
    """{"optimizer_args" and "lr_scheduler_args": {optimizer or scheduler: the keywords that it takes}}."""
    found: Mapping[str, Mapping[str, list[str]]] = _read(kohya_version)["arguments"]
    return found


@cache
def _read(kohya_version: str) -> dict[str, Any]:
    file = _TABLES / f"kohya_ss-{kohya_version}.json"
    if not file.is_file():
        known = ", ".join(sorted(f.stem.removeprefix("kohya_ss-") for f in _TABLES.glob("*.json")))
        raise ConfigurationError(
            f"There is no option table of kohya_ss {kohya_version}.",
            f"Deploy with KohyaVersion set to one of: {known}.",
        )
    content: dict[str, Any] = json.loads(file.read_bytes())
    return content


def check(
    given: Mapping[str, Any], options: Mapping[str, Option], where: str, version: str
) -> tuple[dict[str, Any], list[Finding]]:
    """The options that the trainer knows, in the types that it expects, and what is wrong with the others.

    Args:
        given: option name → value, out of one file.
        where: path of that file, for the findings.
        version: the kohya_ss tag, for the findings.
    """
    accepted: dict[str, Any] = {}
    findings: list[Finding] = []
    for name, value in given.items():
        option = options.get(name)
        if option is None:
            findings.append(_unknown(name, options, where, version))
            continue
        try:
            accepted[name] = _value(option, value)
        except ValueError as cause:
            message = f"The option {name} is {_shown(value)}, but {cause}."
            findings.append(
                error("option-invalid", where, message, f"Give {name} another value, or remove it.")
            )
    return accepted, findings


# What the graphical interface and the original 2024 sample write into a TOML, and why the trainer never reads it.
_WITHOUT_EFFECT = {
    **{
        name: f'it is an argument of the network: network_args = ["{name}=…"]'
        for name in (
            *("conv_dim", "conv_alpha"),
            *("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio"),
        )
    },
    "epoch": "the graphical interface computes max_train_steps with it, which counts, as max_train_epochs does",
    "optimizer": "the option is optimizer_type, and optimizer is the graphical interface's own name for it",
    "unit": 'it is an argument of networks.dylora: network_args = ["unit=…"]',
    "train_on_input": "it belongs to LyCORIS' iA3, which is not used here",
    "model_list": "it is the graphical interface's own list of base models",
    "noise_offset_type": "it chooses what the graphical interface shows; noise_offset itself counts",
    "no_token_padding": "it is an option of the older trainers of whole models",
    "sdxl": "the SDXL trainer is the one that runs",
}


def _unknown(name: str, options: Mapping[str, Option], where: str, version: str) -> Finding:
    if name == "datasets":
        message = (
            "The option datasets is of sd-scripts' configuration of datasets, which is not used here; nothing in it "
            "counts, neither num_repeats nor resolution nor batch_size."
        )
        remedy = (
            "Name folders <repeats>_<token>, and set resolution and train_batch_size as options of their own."
        )
        return warning("option-unknown", where, message, remedy)
    if why := _WITHOUT_EFFECT.get(name):
        message = f"The option {name} does nothing in a configuration of kohya_ss {version}: {why}."
        return warning("option-unknown", where, message, "Remove it.")
    guess = did_you_mean(name, options)
    message = f"kohya_ss {version} has no option '{name[:80]}'; it does nothing.{guess}"
    return warning("option-unknown", where, message, "Correct or remove it.")


def _value(option: Option, value: Any) -> Any:
    if isinstance(value, list):
        if not option.takes_list:
            raise ValueError("it takes one value, not a list")
        return [_single(option, item) for item in value]
    single = _single(option, value)
    # A bare string where the trainer expects a list would be taken letter by letter.
    return [single] if option.takes_list else single


def _single(option: Option, value: Any) -> Any:
    converted = _CONVERSIONS[option.type](value)
    if option.choices and converted not in option.choices:
        choices = ", ".join(str(choice) for choice in option.choices if choice is not None)
        raise ValueError(f"it must be one of: {choices}")
    return converted


def _flag(value: Any) -> bool:
    # The graphical interface writes one of its flags as 1 (lora_gui.py, persistent_data_loader_workers).
    if not isinstance(value, int) or value not in (0, 1):
        raise ValueError("it must be true or false")
    return bool(value)


def _text(value: Any) -> str:
    # Numbers are fine where the trainer reads them out of a string, such as resolution = 1024.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("it must be a string")
    return str(value)


def _integer(value: Any) -> int:
    number = _parsed(value, int)
    if not _is_number(number) or not float(number).is_integer():
        raise ValueError("it must be a whole number")
    return int(number)


def _number(value: Any) -> float:
    number: float = _parsed(value, float)
    if not _is_number(number):
        raise ValueError("it must be a number")
    return number


def _steps_or_share(value: Any) -> float:
    """Steps, or a share of all steps below 1: `100`, `0.1`, `"10%"` (train_util.py, int_or_float).

    Out of a TOML the trainer takes any float for a share, so that 100.0 would be a hundred times all steps.
    """
    if isinstance(value, str) and value.endswith("%"):
        return _number(value[:-1]) / 100
    number = _number(value)
    return number if 0 < number < 1 else _integer(number)


def _is_number(value: Any) -> bool:
    """Finite, and of a size that the trainer's own libraries can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST_NUMBER


def _parsed(value: Any, parse: Callable[[str], Any]) -> Any:
    """Text as the trainer's own command line would read it; out of a TOML it would stay text and fail later."""
    if not isinstance(value, str) or len(value) > _LONGEST_NUMBER:
        return value
    try:
        return parse(value)
    except ValueError:
        return value


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "flag": _flag,
    "str": _text,
    "Path": _text,
    "int": _integer,
    "float": _number,
    "int_or_float": _steps_or_share,
}


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}…"
