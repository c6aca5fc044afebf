"""JSON as its specification has it: what Python's reader lets through is refused, with where it stands."""

from __future__ import annotations

import codecs
import json
from typing import Any, NoReturn

DEEPEST_NESTING = 32
# What word processors and other languages put in the place of ".
_OTHER_QUOTES = "'`´“”„‘’‚«»"


class NotStrictJsonError(ValueError):
    """Why a document is refused: `code` for the finding, the message for its reader.

    `remedy` is None where the code says what to do.
    """

    def __init__(self, code: str, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.remedy = remedy


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
        place, why, remedy = _explained(text, cause)
        raise NotStrictJsonError("json-invalid", f"{_place(text, place)}: {why}", remedy) from cause
    except NotStrictJsonError:
        raise
    except (RecursionError, ValueError) as cause:  # a number of thousands of digits is a ValueError
        raise NotStrictJsonError("json-invalid", "a value is too large to be read") from cause
    _refuse_half_characters(text, document)
    return document


def _explained(text: str, cause: json.JSONDecodeError) -> tuple[int, str, str | None]:
    """Where it is, what it is and what to do, of what people write in place of JSON.

    Python's reader names what it expected there instead, and of a comma too many what follows it.
    """
    rest, before = text[cause.pos :], text[: cause.pos].rstrip()
    if not text.strip():
        return 0, "the file is empty", 'The smallest manifest is {"version": 1}.'
    if rest.startswith(("//", "/*", "#")):
        return cause.pos, "JSON has no comments", "Take the comments out."
    if rest[0:1] and rest[0] in _OTHER_QUOTES:
        return cause.pos, f"{rest[0]} is not a straight double quote", f'Write " in place of {rest[0]}.'
    if cause.msg.startswith("Invalid \\"):
        return cause.pos, "a backslash that stands alone", "Write / or \\\\ in place of each backslash."
    if rest[0:1] in ("}", "]") and before.endswith(","):
        return len(before) - 1, "no value follows this comma", "Take the comma out."
    if not text.lstrip().startswith(("{", "[")):
        return 0, "this does not begin as JSON does", 'Write JSON (not YAML or TOML), such as {"version": 1}.'
    return cause.pos, cause.msg, None


def _place(text: str, position: int) -> str:
    """Counted from 1."""
    before = text[:position]
    return f"line {before.count(chr(10)) + 1}, column {position - before.rfind(chr(10))}"


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
