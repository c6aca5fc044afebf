"""What a version of Kohya's trainer accepts: its own argument parser's options, held as data in `options/`.

Needed because `--config_file` bypasses the parser: Kohya ignores an unknown key and accepts any value.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kohya_trainer.errors import UnsupportedKohyaVersionError

TABLES = Path(__file__).resolve().parent.parent / "options"


@dataclass(frozen=True)
class Problem:
    """Why an option is refused; `kind` is unknown, type or choice."""

    option: str
    kind: str
    message: str


@dataclass(frozen=True)
class OptionTable:
    """The options of one version: name → {"type", "choices"?, "default"?, "nargs"?}."""

    version: str
    options: Mapping[str, Mapping[str, Any]]

    def __contains__(self, option: str) -> bool:
        return option in self.options

    def problems(self, config: Mapping[str, Any]) -> list[Problem]:
        """Every option of `config` that this version does not know or would refuse on its command line."""
        return [problem for name, value in config.items() if (problem := self._problem(name, value))]

    def resolved(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """`config` over the parser's defaults; options without a value (flags that are off, None) are
        left out.
        """
        defaults = {
            name: option["default"]
            for name, option in self.options.items()
            if option.get("default") is not None
        }
        return {**defaults, **config}

    def _problem(self, name: str, value: Any) -> Problem | None:
        option = self.options.get(name)
        if option is None:
            return Problem(name, "unknown", f"{name} is not an option of {self.version}")
        values = value if option.get("nargs") and isinstance(value, list) else [value]
        if not all(_fits(str(option["type"]), item) for item in values):
            return Problem(name, "type", f"{name} = {value!r} is not of type {option['type']}")
        choices = option.get("choices")
        if choices is not None and any(item not in choices for item in values):
            allowed = ", ".join(str(choice) for choice in choices)
            return Problem(name, "choice", f"{name} = {value!r} is not one of {allowed}")
        return None


def load_table(version: str, folder: Path = TABLES) -> OptionTable:
    """The table of a kohya_ss tag such as v25.2.2; raises UnsupportedKohyaVersionError for any other."""
    path = folder / f"kohya_ss-{version}.json"
    if "/" in version or not path.is_file():
        known = ", ".join(
            sorted(table.stem.removeprefix("kohya_ss-") for table in folder.glob("kohya_ss-*.json"))
        )
        raise UnsupportedKohyaVersionError(
            f"There is no option table for Kohya {version} (there is one for {known}).",
            f"Make it inside the image: python -m kohya_trainer.make_option_table {version}",
        )
    return OptionTable(version=version, options=json.loads(path.read_text(encoding="utf-8"))["options"])


def _fits(kind: str, value: Any) -> bool:
    if kind == "flag":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if kind == "int":
        return isinstance(value, int)
    if kind in ("float", "int_or_float"):
        return isinstance(value, int | float)
    return isinstance(value, str)
