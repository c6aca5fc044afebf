"""The trainer's option table: every option that its own argument parser declares, per version of kohya_ss.

With a config file the trainer's parser checks nothing: an unknown key does nothing and a value outside the
choices is taken. So both are checked here. container/options owns the tables; kohya_options is the generated
copy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fine_tuning.errors import ConfigurationError
from fine_tuning.findings import Finding, error, warning
from fine_tuning.nearest import did_you_mean

_TABLES = Path(__file__).with_name("kohya_options")


@dataclass(frozen=True)
class Option:
    """One option as the trainer declares it. `takes_list`: its argument may be repeated (nargs)."""

    name: str
    type: str
    takes_list: bool
    choices: tuple[Any, ...]


@cache
def table(kohya_version: str) -> Mapping[str, Option]:
    """Option name → Option, of a kohya_ss tag such as `v25.2.2`."""
    file = _TABLES / f"kohya_ss-{kohya_version}.json"
    if not file.is_file():
        known = ", ".join(sorted(f.stem.removeprefix("kohya_ss-") for f in _TABLES.glob("*.json")))
        raise ConfigurationError(
            f"There is no option table of kohya_ss {kohya_version}.",
            f"Deploy with KohyaVersion set to one of: {known}.",
        )
    declared: dict[str, dict[str, Any]] = json.loads(file.read_bytes())["options"]
    return {
        name: Option(name, one["type"], "nargs" in one, tuple(one.get("choices", ())))
        for name, one in declared.items()
    }


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
            guess = did_you_mean(name, options)
            message = f"kohya_ss {version} has no option '{name[:80]}'; it does nothing.{guess}"
            findings.append(warning("option-unknown", where, message, "Correct or remove it."))
            continue
        try:
            accepted[name] = _value(option, value)
        except ValueError as cause:
            message = f"The option {name} is {_shown(value)}, but {cause}."
            findings.append(
                error("option-invalid", where, message, f"Give {name} another value, or remove it.")
            )
    return accepted, findings


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
    if not isinstance(value, bool):
        raise ValueError("it must be true or false")
    return value


def _text(value: Any) -> str:
    # Numbers are fine where the trainer reads them out of a string, such as resolution = 1024.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("it must be a string")
    return str(value)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise ValueError("it must be a whole number")
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("it must be a number")
    return value


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "flag": _flag,
    "str": _text,
    "Path": _text,
    "int": _integer,
    "float": _number,
    "int_or_float": _number,
}


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}…"
