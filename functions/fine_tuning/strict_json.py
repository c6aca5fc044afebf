"""JSON as its specification has it: what Python's reader lets through is refused, with where it stands."""

from __future__ import annotations

import codecs
import json
from typing import Any, NoReturn

DEEPEST_NESTING = 32


class NotStrictJsonError(ValueError):
    """Why a document is refused: `code` for the finding, the message for its reader."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def parse(content: bytes) -> Any:
    """The document of UTF-8 bytes without byte order mark, repeated keys, NaN or deep nesting."""
    if content.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise NotStrictJsonError("json-byte-order-mark", "the file begins with a byte order mark")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise NotStrictJsonError("json-not-utf8", f"byte {cause.start + 1} is not UTF-8") from cause
    _refuse_deep_nesting(text)
    try:
        document = json.loads(text, object_pairs_hook=_refuse_repeated_keys, parse_constant=_refuse_constant)
    except json.JSONDecodeError as cause:
        message = f"line {cause.lineno}, column {cause.colno}: {cause.msg}"
        raise NotStrictJsonError("json-invalid", message) from cause
    except NotStrictJsonError:
        raise
    except (RecursionError, ValueError) as cause:  # a number of thousands of digits is a ValueError
        raise NotStrictJsonError("json-invalid", "a value is too large to be read") from cause
    _refuse_half_characters(text, document)
    return document


def _refuse_half_characters(text: str, document: Any) -> None:
    """An escape such as \\ud83d without its second half is no character and cannot be written anywhere."""
    if "\\u" not in text:
        return
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as cause:
        raise NotStrictJsonError("json-invalid", "an escape \\u… is half of a character") from cause


def _refuse_deep_nesting(text: str) -> None:
    """Counts brackets outside strings before the recursive parser sees them."""
    depth, in_string, escaped = 0, False, False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > DEEPEST_NESTING:
                raise NotStrictJsonError(
                    "json-too-deep", f"values are nested more than {DEEPEST_NESTING} deep"
                )
        elif character in "]}":
            depth -= 1


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise NotStrictJsonError("json-repeated-key", f"the key '{key[:80]}' appears twice in one object")
        document[key] = value
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise NotStrictJsonError("json-not-a-number", f"{name} is not a JSON number")
