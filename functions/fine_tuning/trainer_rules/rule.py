"""One rule about options, and the three kinds of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fine_tuning.trainer_rules.facts import Values


@dataclass(frozen=True)
class Rule:
    """Told where `broken` holds and a user's file sets one of `options`.

    Attributes:
        code: options-contradict (the trainer stops), options-ignored (it does without a word what is not
            meant), options-harmful (it trains, to no good).
    """

    code: str
    options: tuple[str, ...]
    broken: Callable[[Values], Any]
    message: str
    remedy: str


def stops(options: tuple[str, ...], broken: Callable[[Values], Any], message: str, remedy: str) -> Rule:
    return Rule("options-contradict", options, broken, message, remedy)


def ignored(option: str, broken: Callable[[Values], Any], why: str, remedy: str = "Remove it.") -> Rule:
    def told(values: Values) -> Any:
        return _says_something(values.get(option)) and broken(values)

    return Rule("options-ignored", (option,), told, f"The option {option} does nothing {why}.", remedy)


def _says_something(value: Any) -> bool:
    return value is not None and value is not False


def harmful(options: tuple[str, ...], broken: Callable[[Values], Any], message: str, remedy: str) -> Rule:
    return Rule("options-harmful", options, broken, message, remedy)
