"""What the names of a dataset's folders say: repeats and token, and which hold regularization images."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

REGULARIZATION_FOLDER = "reg/"  # as the container, and so the plan, calls it
MOST_REPEATS = 1000  # as many as the manifest's own `repeats` may be
_REPEATS = re.compile(r"0*([1-9][0-9]{0,4})(?:_(.*))?", re.DOTALL)
_NO_REPEATS = re.compile(r"0+(?:_(?P<token>.*))?", re.DOTALL)
# What people name folders that the trainer passes over: "10 cat", "10-cat", "x10_cat", "cat_10".
_NEARLY_REPEATS = (
    re.compile(r"[xX×]?(?P<repeats>[0-9]{1,4})[xX×]?[ ._-]+(?P<token>.+)"),
    re.compile(r"(?P<token>.+?)[ ._-]+[xX×]?(?P<repeats>[0-9]{1,4})[xX×]?"),
)
_DAY = re.compile(r"(?:19|20)[0-9]{2}(?![0-9])")
# `reg`, and what people name the same: never images to train on.
_REGULARIZATION = re.compile(r"reg(?:ulari[sz]ation)?(?:[ ._-]*(?:images?|imgs?|data|dir))?", re.IGNORECASE)


def repeats_of(folder: str) -> int | None:
    """The repeats that a folder's own name says, None for a folder that the trainer passes over."""
    match = _REPEATS.fullmatch(PurePosixPath(folder).name)
    return int(match[1]) if match else None


def says_no_repeats(folder: str) -> bool:
    """`0_cat`: the trainer passes over it."""
    return _NO_REPEATS.fullmatch(PurePosixPath(folder).name) is not None


def is_number(folder: str) -> bool:
    """`10` or `10_`: repeats without a token."""
    return PurePosixPath(folder).name.rstrip("_").isdecimal()


def almost(folder: str) -> str | None:
    """The `<repeats>_<token>` that a folder's own name seems to mean: `10 cat` → `10_cat`. A day means none."""
    if _DAY.match(PurePosixPath(folder).name):
        return None
    for pattern in _NEARLY_REPEATS:
        match = pattern.fullmatch(PurePosixPath(folder).name)
        if match and 0 < int(match["repeats"]) <= MOST_REPEATS:
            return f"{int(match['repeats'])}_{match['token']}"
    return None


def is_for_regularization(folder: str) -> bool:
    """Whether any part of its path is `reg` or the like."""
    return before_regularization(folder) is not None


def before_regularization(folder: str) -> str | None:
    """Where its first part lies that is `reg` or the like, None where none is."""
    path = PurePosixPath(folder)
    for number, part in enumerate(path.parts):
        if _REGULARIZATION.fullmatch(part):
            return str(PurePosixPath(*path.parts[:number]))
    return None


def regularizes(folder: str) -> str | None:
    """The folder to whose training folders `<it>/reg/<repeats>_<class>` belongs, None of any other folder."""
    reg = PurePosixPath(folder).parent
    if f"{reg.name}/" != REGULARIZATION_FOLDER or repeats_of(folder) is None:
        return None
    return None if is_for_regularization(str(reg.parent)) else str(reg.parent)


def is_within(folder: str, other: str) -> bool:
    """Whether `folder` is `other` or lies below it."""
    return PurePosixPath(folder).is_relative_to(other) or other == "."
