"""Puts texts into a PNG, as iTXt chunks, which image viewers and Pillow's Image.text show."""

import zlib
from collections.abc import Mapping

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Signature, and the chunk IHDR, which must come first: length, type, 13 bytes, checksum.
_AFTER_HEADER = len(SIGNATURE) + 4 + 4 + 13 + 4


def with_text(png: bytes, texts: Mapping[str, str]) -> bytes:
    """`png` with one chunk a text (PNG specification, 11.3.3.4). Raises ValueError for anything but a PNG."""
    if not png.startswith(SIGNATURE) or png[12:16] != b"IHDR":
        raise ValueError("no PNG")
    chunks = b"".join(_chunk(keyword, text) for keyword, text in texts.items())
    return png[:_AFTER_HEADER] + chunks + png[_AFTER_HEADER:]


def _chunk(keyword: str, text: str) -> bytes:
    # Keyword, end, not compressed, no language, no translated keyword.
    body = b"iTXt" + keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode()
    return (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
