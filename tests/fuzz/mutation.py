"""Makes bad input out of good: deterministic, so that an input's seed and number bring it back.

Bytes are changed, which mostly tries the readers; and values of a well-formed document, which tries what judges it.
"""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

# What parsers stumble over: limits of numbers, halves of characters, brackets, keys of the formats themselves.
WORDS: Sequence[bytes] = (
    *(
        b"",
        b"0",
        b"-1",
        b"1e999",
        b"NaN",
        b"Infinity",
        b"9" * 400,
        b"0x7fffffff",
        b"1979-05-27",
        b"true",
        b"null",
    ),
    *(
        b"{",
        b"}",
        b"[" * 40,
        b"]",
        b'"',
        b"'''",
        b'"""',
        b"\\",
        b"\\ud83d",
        b"\\u0000",
        b"=",
        b"==",
        b"#",
        b"\r",
        b"\n",
    ),
    *(
        b"\x00",
        b"\xff",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        "\u202e\u200d\u0301".encode(),
        b"../",
        b"%2e%2e/",
    ),
    *(
        b'"version"',
        b'"config"',
        b'"files"',
        b'"path"',
        b'"images"',
        b"network_args",
        b"resolution",
        b"optimizer_args",
    ),
    *(b"[section]\n", b"[[a]]\n", b"a.b.c = 1\n", b"conv_dim=4", b"=(" * 200, b"seed = 1e3\n", b"k" * 5000),
    *(
        b"IHDR",
        b"IDAT",
        b"acTL",
        b"zTXt",
        b"\xff\xd8",
        b"\xff\xc0",
        b"\xff\xc2",
        b"\xff\xda",
        b"\xff\xe1Exif\0\0",
    ),
    *(b"RIFF", b"WEBP", b"VP8X", b"ANMF", b"BM", b"GIF89a", b"ftypheic"),
)


# Values as TOML and JSON both write them.
VALUES: Sequence[Any] = (
    *(0, 1, -1, 7, 75, 1000, 2**31, 2**63 - 1, 0.0, 1e-4, 0.1, 0.5, 100.0, -0.5, 1e308, True, False),
    *(
        "",
        "0",
        "-1",
        "16",
        "1e-4",
        "10%",
        "nan",
        "true",
        "1024",
        "1024,768",
        "1000,1000",
        "512,0",
        "a,b",
        "2.0,4.0",
    ),
    *(
        "AdamW",
        "adafactor",
        "Prodigy",
        "os.path",
        "networks.lora",
        "networks.dylora",
        "cosine",
        "constant",
        "fp16",
    ),
    *(
        "bf16",
        "no",
        "huber",
        ".caption",
        ".tags",
        "/etc/passwd",
        "..",
        "x" * 3000,
        "\u202e\u0301",
        "\x00",
        "s3://b/k",
    ),
    *(
        [],
        [""],
        ["a=1"],
        ["a"],
        ["conv_dim=4", "unit=0"],
        ["relative_step=True"],
        ["block_dims=1,2"],
        [1, 2.5],
        [True],
    ),
    *(["betas=(0.9,0.99)"], ["x=" + "(" * 300], ["=="], ["a=1", "a=2"], [[1]], [{"a": 1}], {"a": 1}, {}),
)


def changed_document(seed: bytes, chance: random.Random, names: Sequence[str]) -> bytes:
    """A JSON object whose values, here and there, are others; some keys are new, misspelt or there twice."""
    document = json.loads(seed)
    for _ in range(chance.randint(1, 5)):
        below = chance.choice(_objects(document))
        name = chance.choice([*below, *names])
        if chance.random() < 0.1:
            name = name[::-1] if chance.random() < 0.5 else name * 400
        below[name] = copy.deepcopy(chance.choice(VALUES))
        if chance.random() < 0.2:
            below.pop(chance.choice(list(below)))
    return json.dumps(document, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")


def changed_options(chance: random.Random, names: Sequence[str]) -> bytes:
    """A TOML of up to twelve options with values of any kind, some of them in sections."""
    lines: list[str] = []
    for name in chance.sample(list(names), chance.randint(1, 12)):
        if chance.random() < 0.1:
            lines.append(f"[section{len(lines)}]")
        if chance.random() < 0.05:
            name += "s"
        lines.append(f"{name} = {_as_toml(chance.choice(VALUES))}")
    return "\n".join(lines).encode()


def _as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_as_toml(inner)}" for name, inner in value.items()) + "}"
    return "[" + ", ".join(map(_as_toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


def _objects(document: Any) -> list[dict[str, Any]]:
    """Every object in a document, itself the first."""
    found = [document] if isinstance(document, dict) else []
    inner = (
        document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    )
    return found + [one for value in inner for one in _objects(value)]


def mutated(seed: bytes, chance: random.Random, head: int | None = None) -> bytes:
    """One to six changes, most of them in the first `head` bytes, where formats say what follows."""
    content = bytearray(seed)
    for _ in range(chance.randint(1, 6)):
        end = len(content) if head is None or chance.random() < 0.2 else min(head, len(content))
        place = chance.randint(0, end)
        chance.choice(_CHANGES)(content, place, chance)
    return bytes(content)


def _flip(content: bytearray, place: int, chance: random.Random) -> None:
    if place < len(content):
        content[place] ^= 1 << chance.randrange(8)


def _overwrite(content: bytearray, place: int, chance: random.Random) -> None:
    word = chance.choice(WORDS)
    content[place : place + len(word)] = word


def _insert(content: bytearray, place: int, chance: random.Random) -> None:
    content[place:place] = chance.choice(WORDS)


def _number(content: bytearray, place: int, chance: random.Random) -> None:
    number = chance.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x4000, 65500, 0x7FFFFFFF, 0xFFFFFFFF))
    kind = chance.choice("<>") + chance.choice("HI")
    packed = struct.pack(kind, number & (0xFFFF if kind.endswith("H") else 0xFFFFFFFF))
    content[place : place + len(packed)] = packed


def _cut(content: bytearray, place: int, chance: random.Random) -> None:
    del content[place : place + chance.randint(1, 40)]


def _truncate(content: bytearray, place: int, chance: random.Random) -> None:
    del content[place:]


def _repeat(content: bytearray, place: int, chance: random.Random) -> None:
    content[place:place] = content[place : place + chance.randint(1, 60)] * chance.randint(1, 4)


_CHANGES: Sequence[Callable[[bytearray, int, random.Random], None]] = (
    *(_flip, _flip, _overwrite, _overwrite, _insert, _insert, _number, _number, _cut, _repeat, _truncate),
)
