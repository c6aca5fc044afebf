"""What the content of a file says."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

import pytest
from PIL import Image

from fine_tuning import inspection
from fine_tuning.inventory import InspectedFile, InventoryFile
from fine_tuning.manifest import DeclaredFile
from tests.functions_data import image_bytes

GIF = io.BytesIO()
Image.new("RGB", (300, 300)).save(GIF, "GIF")


def inspect(
    path: str, content: bytes, declared: DeclaredFile | None = None
) -> tuple[InspectedFile, list[str]]:
    file = InventoryFile(path, len(content), "e", "v")
    result, findings = inspection.inspect(file, content, declared)
    return result, [f"{finding.severity} {finding.code}" for finding in findings]


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims side × side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("a.jpg", image_bytes(), []),
        ("a.webp", image_bytes(300, 300, "WEBP"), []),
        ("a.jpg", image_bytes(300, 300, "PNG"), ["warning image-extension-differs"]),
        ("a.jpg", image_bytes(200, 800), ["warning image-too-small"]),
        ("a.jpg", image_bytes()[:5000], ["error image-truncated"]),
        ("a.png", image_bytes(300, 300, "PNG")[:5000], ["error image-truncated"]),
        ("a.jpg", b"", ["error image-empty"]),
        ("a.jpg", b"<html>", ["error image-unreadable"]),
        ("a.png", bomb(60_000), ["error image-too-large"]),
        ("a.jpg", GIF.getvalue(), ["error image-format-unsupported"]),
        ("a.heic", b"x", ["error image-format-unsupported"]),
        ("a.txt", "süß".encode(), []),
        ("a.txt", "\ufeffcat".encode(), []),
        ("a.txt", "süß".encode("latin-1"), ["error caption-not-utf8"]),
        ("a.txt", b" \n", ["warning caption-empty"]),
        ("notes.md", b"x", ["warning file-not-used"]),
        ("kohya-sdxl-config.toml", b"x", []),
    ],
)
def test_findings(path: str, content: bytes, expected: list[str]) -> None:
    result, findings = inspect(path, content)
    assert findings == expected
    assert result.sha256 == hashlib.sha256(content).hexdigest()
    is_error = any(finding.startswith("error") for finding in findings)
    assert (result.width is not None) == (result.kind == "image" and not is_error)


def test_the_size_is_the_one_after_exif_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    result, _ = inspect("a.jpg", image_bytes(640, 480, exif=exif))
    assert (result.width, result.height) == (480, 640)


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (DeclaredFile("a.txt", 3, hashlib.sha256(b"cat").hexdigest().upper()), []),
        (DeclaredFile("a.txt", 4), ["error file-size-differs"]),
        (DeclaredFile("a.txt", sha256="0" * 64), ["error file-digest-differs"]),
    ],
)
def test_a_declared_file_must_be_what_it_was_declared_as(declared: DeclaredFile, expected: list[str]) -> None:
    assert inspect("a.txt", b"cat", declared)[1] == expected


def test_a_missing_caption_is_told_of_training_images_only() -> None:
    paths = ["10_x/a.jpg", "10_x/b.jpg", "10_x/b.caption", "reg/1_y/c.jpg"]
    findings = inspection.captions_missing([InventoryFile(path, 1, "e", "v") for path in paths])
    assert [(f.code, f.severity, f.path) for f in findings] == [("caption-missing", "warning", "10_x/a.jpg")]


def test_a_huge_file_is_refused_before_it_is_read() -> None:
    assert inspection.too_large(InventoryFile("a.jpg", 200 * 1024 * 1024, "e", "v")) is None
    finding = inspection.too_large(InventoryFile("a.jpg", 200 * 1024 * 1024 + 1, "e", "v"))
    assert finding is not None
    assert finding.code == "file-too-large"
