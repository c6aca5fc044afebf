"""What the content of a file says: images are decoded to the last pixel, captions are read.

The trainer's loader stops the whole job at one unreadable image and takes a missing caption silently, so both
are found here, on a CPU.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from fine_tuning.findings import Finding, error, warning
from fine_tuning.inventory import (
    CAPTION_EXTENSIONS,
    OTHER_IMAGE_EXTENSIONS,
    InspectedFile,
    InventoryFile,
    inspected,
    kind_of,
    stem_of,
    with_size,
)
from fine_tuning.manifest import DeclaredFile
from fine_tuning.run import TOML_NAME

LARGEST_IMAGE_PIXELS = 100_000_000  # 300 MB decoded, what the function's memory holds
LARGEST_FILE = 200 * 1024 * 1024  # bytes; one file is held in memory
SMALLEST_SIDE = 256  # pixels; the smallest side of an aspect bucket
REGULARIZATION_FOLDER = "reg/"
_FORMATS = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "BMP": (".bmp",)}
_EXIF_ORIENTATION = 0x0112
_SUPPORTED = "JPEG, PNG, WebP or BMP"


def inspect(
    file: InventoryFile, content: bytes, declared: DeclaredFile | None
) -> tuple[InspectedFile, list[Finding]]:
    """A file with its digest and, for an image, its size in pixels; and what is wrong with it."""
    result = inspected(file, hashlib.sha256(content).hexdigest(), kind_of(file.path))
    findings = _against_declaration(file, result.sha256, declared)
    if result.kind == "image":
        size, problems = _decode(file.path, content)
        return (with_size(result, *size) if size else result), findings + problems
    if result.kind == "caption":
        return result, findings + _read_caption(file.path, content)
    return result, findings + _unusable(file.path)


def too_large(file: InventoryFile) -> Finding | None:
    """The finding for a file that no image or caption of a dataset is as large as.

    Asked before it is read.
    """
    if file.size <= LARGEST_FILE:
        return None
    message = f"The file has {file.size} bytes; {LARGEST_FILE} is the limit."
    return error(
        "file-too-large", file.path, message, "Scale the image down, or move the file out of the dataset."
    )


def captions_missing(files: Sequence[InventoryFile]) -> list[Finding]:
    """A warning for each image to train on without a caption beside it; regularization images need none."""
    stems = {stem_of(file.path) for file in files if kind_of(file.path) == "caption"}
    return [
        warning(
            "caption-missing",
            file.path,
            "This image has no caption beside it; the trainer takes the folder's token instead.",
            f"Add {PurePosixPath(stem_of(file.path)).name}.txt with a sentence that describes the image.",
        )
        for file in files
        if kind_of(file.path) == "image"
        and not file.path.startswith(REGULARIZATION_FOLDER)
        and stem_of(file.path) not in stems
    ]


def _against_declaration(file: InventoryFile, sha256: str, declared: DeclaredFile | None) -> list[Finding]:
    if declared is None:
        return []
    remedy = "Upload the file again, or correct the manifest."
    findings: list[Finding] = []
    if declared.size is not None and declared.size != file.size:
        message = f"The manifest says {declared.size} bytes; the file has {file.size}."
        findings.append(error("file-size-differs", file.path, message, remedy))
    if declared.sha256 is not None and declared.sha256.lower() != sha256:
        message = f"The manifest says sha256 {declared.sha256.lower()[:12]}…; the file has {sha256[:12]}…."
        findings.append(error("file-digest-differs", file.path, message, remedy))
    return findings


def _decode(path: str, content: bytes) -> tuple[tuple[int, int] | None, list[Finding]]:
    """Width and height after EXIF orientation, or None where the image cannot be trained on."""
    if not content:
        return None, [error("image-empty", path, "The file has no bytes.", "Upload the image again.")]
    from PIL import Image, ImageFile, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = (
        None  # the limit below is asked before a pixel is decoded, and is an error, not a warning
    )
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.format not in _FORMATS:
                return None, [_unsupported(path, f"The file is {image.format}")]
            if image.width * image.height > LARGEST_IMAGE_PIXELS:
                claimed = f"{image.width} × {image.height} pixels"
                message = f"The image claims {claimed}; {LARGEST_IMAGE_PIXELS} pixels are the limit."
                return None, [error("image-too-large", path, message, "Scale it down.")]
            image.load()
            size = _upright(image.size, image.getexif().get(_EXIF_ORIENTATION, 1))
            return size, _about_image(path, image.format, size)
    except UnidentifiedImageError:
        return None, [
            error("image-unreadable", path, "This is not an image.", f"Save it again as {_SUPPORTED}.")
        ]
    except Exception as cause:  # Pillow's decoders raise whatever a damaged file makes them
        truncated = "truncated" in str(cause).lower()
        code, what = (
            ("image-truncated", "ends too early") if truncated else ("image-unreadable", "cannot be decoded")
        )
        return None, [
            error(code, path, f"The image {what} ({_first_line(cause)}).", "Export and upload it again.")
        ]


def _upright(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """EXIF orientations 5 to 8 turn the image by a quarter."""
    return (size[1], size[0]) if orientation in (5, 6, 7, 8) else size


def _about_image(path: str, format_name: str, size: tuple[int, int]) -> list[Finding]:
    findings: list[Finding] = []
    extension = PurePosixPath(path).suffix.lower()
    if extension not in _FORMATS[format_name]:
        message = f"The name says {extension}, the content is {format_name}."
        remedy = f"Rename it to end in {_FORMATS[format_name][0]}; training works either way."
        findings.append(warning("image-extension-differs", path, message, remedy))
    if min(size) < SMALLEST_SIDE:
        message = f"The image has {size[0]} × {size[1]} pixels and is enlarged for training."
        findings.append(
            warning("image-too-small", path, message, f"Use a larger one; {SMALLEST_SIDE} pixels at least.")
        )
    return findings


def _read_caption(path: str, content: bytes) -> list[Finding]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        message = f"The caption is not UTF-8 (byte {cause.start + 1})."
        return [error("caption-not-utf8", path, message, "Save it as UTF-8.")]
    if not text.strip():
        return [
            warning("caption-empty", path, "The caption is empty.", "Describe the image, or delete the file.")
        ]
    return []


def _unusable(path: str) -> list[Finding]:
    extension = PurePosixPath(path).suffix.lower()
    if extension in OTHER_IMAGE_EXTENSIONS:
        return [_unsupported(path, f"The trainer does not read {extension} files")]
    if path == TOML_NAME:
        return []
    expected = ", ".join(CAPTION_EXTENSIONS)
    message = f"This file is neither an image nor a caption ({expected}); it is not used."
    return [warning("file-not-used", path, message, "Remove it, or rename it if it is one.")]


def _unsupported(path: str, what: str) -> Finding:
    return error(
        "image-format-unsupported", path, f"{what}, which cannot be trained on.", f"Save it as {_SUPPORTED}."
    )


def _first_line(cause: Exception) -> str:
    return (str(cause).splitlines() or [type(cause).__name__])[0][:120]


def by_path(declared: Iterable[DeclaredFile]) -> dict[str, DeclaredFile]:
    return {file.path: file for file in declared}
