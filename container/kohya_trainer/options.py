"""What a version of Kohya's trainer accepts: its own argument parser's options, held as data in `options/`.

Needed because `--config_file` bypasses the parser: Kohya ignores an unknown key and accepts any value.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kohya_trainer.errors import UnsupportedKohyaVersionError
from kohya_trainer.keyword_arguments import OPTIMIZERS

TABLES = Path(__file__).resolve().parent.parent / "options"


@dataclass(frozen=True)
class Problem:
    """Why an option is refused; `kind` is unknown, type, choice or argument."""

    option: str
    kind: str
    message: str


@dataclass(frozen=True)
class OptionTable:
    """The options of one version: name → {"type", "choices"?, "default"?, "nargs"?}.

    arguments: {"optimizer_args" and "lr_scheduler_args": {optimizer or scheduler: the keywords that it takes}}.
    """

    version: str
    options: Mapping[str, Mapping[str, Any]]
    arguments: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict)

    def __contains__(self, option: str) -> bool:
        return option in self.options

    def problems(self, config: Mapping[str, Any]) -> list[Problem]:
        """Every option of `config` that this version does not know or would refuse on its command line."""
        found = [problem for name, value in config.items() if (problem := self._problem(name, value))]
        return found or self._argument_problems(config)

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

    def _argument_problems(self, config: Mapping[str, Any]) -> list[Problem]:
        """Keywords that optimizer or scheduler does not take; of one that is not in the table nothing is known."""
        return [
            Problem(option, "argument", f"{taker} takes no {name} in {option}, but {', '.join(keywords)}")
            for option, taker in takers(config).items()
            if (keywords := self.arguments.get(option, {}).get(taker)) is not None
            for name in (str(item).partition("=")[0] for item in config.get(option) or ())
            if name not in keywords
        ]


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
    content = json.loads(path.read_text(encoding="utf-8"))
    return OptionTable(version, content["options"], content["arguments"])


def takers(config: Mapping[str, Any]) -> dict[str, str]:
    """To whom the trainer hands optimizer_args and lr_scheduler_args (get_optimizer, get_scheduler_fix)."""
    optimizer = str(config.get("optimizer_type") or "AdamW")
    if config.get("use_8bit_adam") or config.get("use_lion_optimizer"):
        optimizer = "AdamW8bit" if config.get("use_8bit_adam") else "Lion"
    optimizer = {name.lower(): name for name in OPTIMIZERS}.get(optimizer.lower(), optimizer)
    # Adafactor may bring its own schedule, and those without a schedule have none.
    scheduled = optimizer != "Adafactor" and not optimizer.endswith("ScheduleFree")
    if not scheduled or config.get("lr_scheduler_type"):
        return {"optimizer_args": optimizer}
    return {"optimizer_args": optimizer, "lr_scheduler_args": str(config.get("lr_scheduler", "constant"))}


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
