"""What a caption says, read as the trainer reads it.

sd-scripts, library/train_util.py, read_caption: UTF-8, the first line alone unless enable_wildcard is set, and
an assertion that ends the job where a file has no line at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from fine_tuning import clip_tokens
from fine_tuning.findings import Finding, error, warning

SHORTEST_LIMIT = 75  # tokens; what max_token_length is where nothing is said
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Caption:
    """What later steps must know of a caption.

    Attributes:
        tokens: of the line that is trained on, None where they are at most SHORTEST_LIMIT.
        lacks_trigger: True where the manifest has a trigger word and the caption does not.
    """

    tokens: int | None = None
    lacks_trigger: bool | None = None


def check(path: str, content: bytes, trigger_word: str | None) -> tuple[Caption, list[Finding]]:
    """The caption's facts and what is wrong with it."""
    if not content:
        message = "The caption has no bytes; the trainer stops at it."
        return Caption(), [error("caption-empty", path, message, "Describe the image, or delete the file.")]
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as cause:
        message = f"The caption is not UTF-8 (byte {cause.start + 1})."
        return Caption(), [error("caption-not-utf8", path, message, "Save it as UTF-8.")]
    findings: list[Finding] = []
    if text.startswith(_BYTE_ORDER_MARK):
        message = "The caption begins with a byte order mark, which the trainer takes for a character of it."
        remedy = "Save it as UTF-8 without byte order mark."
        findings.append(warning("caption-byte-order-mark", path, message, remedy))
        text = text.removeprefix(_BYTE_ORDER_MARK)
    if not text.strip():
        message = "The caption is empty; the image is trained without any text."
        return Caption(), [
            *findings,
            warning("caption-empty", path, message, "Describe the image, or delete the file."),
        ]
    # As Python's text files read them: \r\n and \r are ends of lines too.
    first, *others = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if any(line.strip() for line in others):
        message = "Only the caption's first line is trained on" + (
            "." if first.strip() else ", and it is empty."
        )
        remedy = "Write it on one line, or set enable_wildcard to have a line drawn each time."
        findings.append(warning("caption-lines", path, message, remedy))
    return _facts(first.strip(), trigger_word), findings


def _facts(line: str, trigger_word: str | None) -> Caption:
    tokens = None if clip_tokens.fits(line, SHORTEST_LIMIT) else clip_tokens.count(line)
    lacks = trigger_word is not None and trigger_word.casefold() not in line.casefold()
    return Caption(tokens, lacks or None)
