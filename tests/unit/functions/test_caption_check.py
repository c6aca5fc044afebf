"""What a caption says, and how long CLIP finds it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fine_tuning import caption_check, clip_tokens
from fine_tuning.caption_check import Caption

ANSWERS = json.loads((Path(__file__).parent / "data" / "clip_tokens.json").read_bytes())["captions"]


def told(content: bytes, trigger_word: str | None = None) -> tuple[Caption, list[str]]:
    caption, findings = caption_check.check("a.txt", content, trigger_word)
    return caption, [f"{finding.severity} {finding.code}" for finding in findings]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a cat", []),
        ("süß\n".encode(), []),
        (b"", ["error caption-empty"]),  # train_util.py: assert len(lines) > 0
        (b" \r\n\t", ["warning caption-empty"]),
        ("süß".encode("latin-1"), ["error caption-not-utf8"]),
        ("cat".encode("utf-16"), ["error caption-not-utf8"]),
        ("\ufeffcat".encode(), ["warning caption-byte-order-mark"]),
        ("\ufeff \n".encode(), ["warning caption-byte-order-mark", "warning caption-empty"]),
        (b"a cat\na dog", ["warning caption-lines"]),
        (b"a cat\ra dog", ["warning caption-lines"]),
        (b"\na dog", ["warning caption-lines"]),
        (b"a cat\r\n\r\n", []),
    ],
)
def test_findings(content: bytes, expected: list[str]) -> None:
    assert told(content)[1] == expected


def test_only_the_line_that_is_trained_on_counts() -> None:
    assert told(b"a cat\n" + b"word " * 100)[0] == Caption()
    assert told(b"word " * 76 + b"\na cat")[0].tokens == 76
    assert told(b"word " * 75)[0].tokens is None
    assert told(b"a cat\nsks", "sks")[0].lacks_trigger


@pytest.mark.parametrize(
    ("text", "lacks"), [(b"sks cat", None), (b"SKS cat", None), (b"a cat", True), (b"", None)]
)
def test_the_trigger_word(text: bytes, lacks: bool | None) -> None:
    assert told(text, "sks")[0].lacks_trigger is lacks
    assert told(text)[0].lacks_trigger is None


@pytest.mark.parametrize("answer", ANSWERS, ids=[str(number) for number in range(len(ANSWERS))])
def test_tokens_are_those_of_the_tokenizer_that_the_trainer_uses(answer: dict[str, object]) -> None:
    text = str(answer["text"])
    assert clip_tokens.count(text) == answer["tokens"]
    for most in (75, 150):
        assert clip_tokens.fits(text, most) is (clip_tokens.count(text) <= most)
