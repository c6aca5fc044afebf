"""Replacing parts of ministack by name."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any


def replace(module: ModuleType, name: str, new: Callable[..., Any]) -> Callable[..., Any]:
    """Put `new` where `module.name` was and return what was there; a name that is gone is an error.

    Only calls through the module are redirected: what another module imported with `from … import name` is not.
    """
    if not hasattr(module, name):
        raise RuntimeError(
            f"{module.__name__} has no {name}: the embedded AWS extends ministack 1.5.33 and no other"
        )
    old: Callable[..., Any] = getattr(module, name)
    setattr(module, name, new)
    return old


def replace_in_text(module: ModuleType, name: str, old: str, new: str) -> None:
    """Replace the one occurrence of `old` in `module.name`, a program that ministack runs elsewhere."""
    text: str = getattr(module, name)
    if text.count(old) != 1:
        raise RuntimeError(
            f"{module.__name__}.{name} has changed: the embedded AWS extends ministack 1.5.33 alone"
        )
    setattr(module, name, text.replace(old, new))


def replace_import(module: ModuleType, name: str, **parts: object) -> None:
    """Let `module` alone see the module that it imported as `name` with other `parts`."""
    imported = getattr(module, name, None)
    if not isinstance(imported, ModuleType) or not all(hasattr(imported, part) for part in parts):
        raise RuntimeError(
            f"{module.__name__}.{name} has changed: the embedded AWS extends ministack 1.5.33 alone"
        )
    setattr(module, name, SimpleNamespace(**{**vars(imported), **parts}))
