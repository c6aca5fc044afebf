"""How many tokens CLIP's own tokenizer makes of a caption; both text encoders of SDXL share its vocabulary.

The steps are those of transformers' CLIPTokenizer (models/clip/tokenization_clip.py), which the trainer uses:
ftfy, white space, lower case, pieces, bytes, merges. A library that reads this vocabulary brings megabytes and
a hub client along (docs/decisions); tests compare this module with what the real one answered.
"""

from __future__ import annotations

import gzip
import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

_VOCABULARY = Path(__file__).with_name("clip") / "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49152 - 256 - 2  # entries of CLIP's vocabulary, less the bytes and the two special tokens
_SPECIAL = re.compile(r"<\|startoftext\|>|<\|endoftext\|>")
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_END_OF_WORD = "</w>"
_FAR = 1 << 30

_Merge = tuple[str, str]


def count(text: str) -> int:
    """Tokens of a text, without the start and the end token that the trainer adds."""
    special = len(_SPECIAL.findall(text))
    cleaned = (" ".join(_repaired(part).split()).lower() for part in _SPECIAL.split(text))
    return special + sum(_length(piece) for part in cleaned for piece in _pieces(part))


def fits(text: str, most: int) -> bool:
    """Whether a text has at most so many tokens; a token is at least one byte of it."""
    plain = text.isascii() and "&" not in text
    return (plain and len(text) <= most) or count(text) <= most


def _repaired(text: str) -> str:
    """The text as ftfy mends it; plain ASCII without markup is what it already is."""
    if text.isascii() and text.isprintable() and "&" not in text:
        return text
    import ftfy  # few captions need it, and its tables take a moment to load

    return ftfy.fix_text(text)


def _pieces(text: str) -> Iterator[str]:
    r"""`'s|'t|…|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`, in the order in which a regular expression tries them."""
    position = 0
    while position < len(text):
        contraction = next((one for one in _CONTRACTIONS if text.startswith(one, position)), None)
        kind = _kind(text[position])
        end = position + 1
        if contraction:
            end = position + len(contraction)
        elif kind in "LO":
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if kind != "S":
            yield text[position:end]
        position = end


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    """L a letter, N a number, S white space, O anything else."""
    if character.isspace():
        return "S"
    category = unicodedata.category(character)[0]
    return category if category in "LN" else "O"


@lru_cache(maxsize=65536)
def _length(piece: str) -> int:
    """Tokens of a piece: its bytes, joined by the merges of the lowest rank first."""
    ranks, letters = _merge_ranks(), _letters()
    symbols = [letters[byte] for byte in piece.encode("utf-8", "surrogatepass")]
    symbols[-1] += _END_OF_WORD
    while len(symbols) > 1:
        rank, best = min((ranks.get(pair, _FAR), pair) for pair in pairwise(symbols))
        if rank == _FAR:
            break
        symbols = list(_merged(symbols, best))
    return len(symbols)


def _merged(symbols: list[str], pair: _Merge) -> Iterator[str]:
    position = 0
    while position < len(symbols):
        if tuple(symbols[position : position + 2]) == pair:
            yield pair[0] + pair[1]
            position += 2
        else:
            yield symbols[position]
            position += 1


@cache
def _merge_ranks() -> dict[_Merge, int]:
    lines = gzip.decompress(_VOCABULARY.read_bytes()).decode().split("\n")[1 : _MERGES + 1]
    ranks: dict[_Merge, int] = {}
    for rank, line in enumerate(lines):
        first, second = line.split()
        ranks[first, second] = rank
    return ranks


@cache
def _letters() -> dict[int, str]:
    """Byte → the letter that stands for it in the vocabulary (bytes_to_unicode)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
