"""Writes flat TOML that Kohya's own reader (the package `toml` 0.10.2) and the standard library read
alike.
"""

import json
from collections.abc import Mapping
from typing import Any

from kohya_trainer.errors import InvalidConfigurationError


def to_toml(options: Mapping[str, Any]) -> str:
    """One `name = value` a line, sorted; values are booleans, numbers, strings, or lists of these."""
    return "".join(f"{name} = {_value(name, options[name])}\n" for name in sorted(options))


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for the one control character that JSON leaves as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_value(name, item) for item in value) + "]"
    raise InvalidConfigurationError(
        f"{name} has a value of a form that Kohya has no use for.", "Remove the option."
    )
