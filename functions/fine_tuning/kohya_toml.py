"""The user's kohya-sdxl-config.toml, read as the trainer reads it, and config.toml, written for it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from fine_tuning.findings import Finding, error, warning
from fine_tuning.run import TOML_NAME

LARGEST_TOML = 1024 * 1024  # bytes


def read(content: bytes | None) -> tuple[dict[str, Any], list[Finding]]:
    """The options of the user's file; none where there is no file.

    Sections are flattened as the trainer does (train_util.read_config_from_file): the last one counts.
    """
    if content is None:
        return {}, []
    if len(content) > LARGEST_TOML:
        message = f"The configuration has {len(content)} bytes; {LARGEST_TOML} is the limit."
        return {}, [error("config-too-large", TOML_NAME, message, "Leave only Kohya's options in it.")]
    try:
        document = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as cause:
        message = f"The configuration is not UTF-8 (byte {cause.start + 1})."
        return {}, [error("config-not-toml", TOML_NAME, message, "Save it as UTF-8.")]
    except (ValueError, RecursionError) as cause:  # a number of thousands of digits is a plain ValueError
        message = f"The configuration is not TOML: {_reason(cause, content)}."
        remedy = "Correct it there, for example quote the text values."
        return {}, [error("config-not-toml", TOML_NAME, message, remedy)]
    return _flattened(document)


def write(values: Mapping[str, Any]) -> bytes:
    """config.toml: flat and sorted, the same bytes for the same options."""
    import tomli_w

    return tomli_w.dumps(dict(sorted(values.items()))).encode()


def _flattened(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
    flat: dict[str, Any] = {}
    findings: list[Finding] = []
    for name, value in document.items():
        for option, setting in (value if isinstance(value, dict) else {name: value}).items():
            if option in flat:
                message = f"The option '{option[:80]}' stands in several sections; the last one counts."
                findings.append(warning("option-repeated", TOML_NAME, message, "Keep one of them."))
            flat[option] = setting
    return flat, findings


def _reason(cause: Exception, content: bytes) -> str:
    """The reader's reason; it names no line where the document ends too early."""
    reason = (str(cause).splitlines() or ["nested too deep"])[0][:200]
    lines = content.count(b"\n") + 1
    return reason.replace("at end of document", f"at the end, line {lines}")
