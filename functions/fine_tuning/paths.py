"""Paths as somebody wrote or uploaded them: whether they are one, and where they lead."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath
from urllib.parse import unquote

_PERCENT_DECODINGS = 4  # a path that is still encoded after so many rounds means harm


def same_name(path: str) -> str:
    """Equal for paths that a disk may take for one: case is folded, accents are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def is_inside(path: str) -> bool:
    """Whether a relative S3 path stays below its prefix, also when it becomes a path on a disk.

    And when somebody decodes it: '%2e%2e/' is refused, '100%.jpg' is not.
    """
    decoded = path
    for _ in range(_PERCENT_DECODINGS):
        if not is_plain(decoded):
            return False
        if (again := unquote(decoded)) == decoded:
            return True
        decoded = again
    return False


def shown(path: str) -> str:
    """With what nobody would see, such as the carriage return in macOS' `Icon\\r`, written out."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in path
    )


def is_downloadable(key: str) -> bool:
    """Whether SageMaker takes an S3 key: it downloads nothing "with an illegal char sub-sequence '//' in it"."""
    return "//" not in f"/{key}"


def is_plain(path: str) -> bool:
    """Whether a relative path says what it says: no empty part, `.`, `..`, backslash or control character."""
    parts = path.split("/")
    if PurePosixPath(path).is_absolute() or "\\" in path or any(part in ("", ".", "..") for part in parts):
        return False
    return not any(unicodedata.category(character).startswith("C") for character in path)
