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


def jpeg(**options: object) -> bytes:
    return image_bytes(300, 300, "JPEG", **options)


def saved(image: Image.Image, format_name: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, format_name, **options)
    return content.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image_bytes(640, 480, exif=exif)


SQUARE = Image.effect_noise((300, 300), 60)
CLEAR = Image.merge("RGBA", (SQUARE, SQUARE, SQUARE, Image.new("L", (300, 300), 0)))
OPAQUE = Image.merge("RGBA", (SQUARE, SQUARE, SQUARE, Image.new("L", (300, 300), 255)))
FRAMES = {"save_all": True, "append_images": [Image.new("RGB", (300, 300), "red")]}


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("a.jpg", image_bytes(), []),
        ("a.JPG", image_bytes(), []),
        ("a.webp", image_bytes(300, 300, "WEBP"), []),
        ("a.bmp", image_bytes(300, 300, "BMP"), []),
        ("a.png", saved(SQUARE), []),
        ("a.png", saved(OPAQUE), []),
        ("a.jpg", saved(SQUARE.convert("RGB"), "MPO", **FRAMES), []),
        ("a.jpg", image_bytes(300, 300, "PNG"), ["warning image-extension-differs"]),
        ("a.jpg", image_bytes()[:5000], ["error image-truncated"]),
        ("a.png", image_bytes(300, 300, "PNG")[:5000], ["error image-truncated"]),
        ("a.webp", image_bytes(300, 300, "WEBP")[:5000], ["error image-unreadable"]),
        ("a.jpg", b"", ["error image-empty"]),
        ("a.jpg", b"<html>", ["error image-unreadable"]),
        ("a.jpg", b"\0" * 5000, ["error image-unreadable"]),
        ("a.png", bomb(60_000), ["error image-too-large"]),
        ("a.png", bomb(8_193), ["error image-too-large"]),
        ("a.jpg", saved(SQUARE, "GIF"), ["error image-format-unsupported"]),
        ("a.png", saved(SQUARE, "TIFF"), ["error image-format-unsupported"]),
        ("a.jpg", b"\0\0\0\x18ftypheic\0\0\0\0", ["error image-format-unsupported"]),
        ("a.jpg", b"\0\0\0\x1cftypavif\0\0\0\0", ["error image-format-unsupported"]),
        ("a.png", b'<?xml version="1.0"?>\n<svg xmlns="x"/>', ["error image-format-unsupported"]),
        ("a.png", b"%PDF-1.7", ["error image-format-unsupported"]),
        ("a.heic", b"x", []),  # the layout says whether it is missed
        ("a.jfif", image_bytes(), []),
        ("a.mov", b"x", ["warning file-not-used"]),
        ("a.jpg", saved(Image.merge("CMYK", (SQUARE,) * 4), "JPEG"), ["warning image-cmyk"]),
        ("a.png", saved(SQUARE.convert("I;16")), ["error image-16-bit"]),
        ("a.png", saved(SQUARE.convert("P")), ["note image-palette"]),
        (
            "a.png",
            saved(SQUARE.convert("P"), transparency=0),
            ["note image-palette", "warning image-transparent"],
        ),
        ("a.png", saved(CLEAR), ["warning image-transparent"]),
        ("a.webp", saved(CLEAR, "WEBP", lossless=True), ["warning image-transparent"]),
        ("a.png", saved(SQUARE.convert("RGB"), **FRAMES), ["warning image-animated"]),
        ("a.webp", saved(SQUARE.convert("RGB"), "WEBP", **FRAMES), ["warning image-animated"]),
        ("a.jpg", turned(6), ["warning image-orientation"]),
        ("a.jpg", turned(1), []),
        ("a.jpg", turned(99), []),
        ("._a.jpg", b"\0\5\x16\7", ["note file-not-used"]),
        ("__MACOSX/a.jpg", b"x", ["note file-not-used"]),
        ("10_x/.DS_Store", b"x", ["note file-not-used"]),
        ("10_x/Icon\r", b"", ["note file-not-used"]),
        ("10_x/Picasa.ini", b"x", ["note file-not-used"]),
        ("10_x/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", b"x", ["note file-not-used"]),
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


def test_the_size_is_the_one_that_the_trainer_sees() -> None:
    result, _ = inspect("a.jpg", turned(6))
    assert (result.width, result.height) == (640, 480)  # it does not turn what EXIF says is turned


def test_damaged_exif_hinders_nobody() -> None:
    content = turned(6).replace(b"Exif\0\0MM\0*", b"Exif\0\0MM\0\xff")
    assert inspect("a.jpg", content)[1] == []


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


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("a.jpg", "file-too-large"),
        ("a.txt", "file-too-large"),
        ("kohya-sdxl-config.toml", "file-too-large"),
        ("model/last.safetensors", "file-not-used"),
    ],
)
def test_a_huge_file_is_not_read(path: str, code: str) -> None:
    largest = InventoryFile("a.md", inspection.LARGEST_FILE, "e", "v")
    result, _ = inspection.read_and_inspect(largest, lambda: b"content", None)
    assert result.sha256 == hashlib.sha256(b"content").hexdigest()

    def read() -> bytes:
        raise AssertionError("it was read")

    huge = InventoryFile(path, inspection.LARGEST_FILE + 1, "e", "v")
    _, findings = inspection.read_and_inspect(huge, read, None)
    assert [finding.code for finding in findings] == [code]


@pytest.mark.parametrize(
    ("declared", "codes"),
    [
        (DeclaredFile("a.bin", size=1), ["file-size-differs", "file-not-used"]),
        (DeclaredFile("a.bin", sha256="0" * 64), ["file-too-large"]),
    ],
)
def test_what_the_manifest_declares_of_a_huge_file_is_no_empty_word(
    declared: DeclaredFile, codes: list[str]
) -> None:
    huge = InventoryFile("a.bin", inspection.LARGEST_FILE + 1, "e", "v")
    _, findings = inspection.read_and_inspect(huge, lambda: b"", declared)
    assert [finding.code for finding in findings] == codes
