"""What the content of an image says: it is decoded to the last pixel, in bounded memory.

The trainer's loader (sd-scripts, library/train_util.py, load_image) is `Image.open(path).convert("RGB")`: it
stops the whole job at one unreadable file, turns nothing upright, drops transparency and knows no colour
profile. What would come of that is told here, on a CPU.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from fine_tuning.file_kinds import JPEG_EXTENSIONS
from fine_tuning.findings import Finding, error, note, warning

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]

# Bytes that decoding takes for a pixel, at most: Pillow's own 4, 1 of an alpha channel that is looked at, what libjpeg
# keeps of a progressive image (three channels of 16 bits), what libwebp keeps of a canvas (docs/benchmarks.md).
_BYTES_OF_PIXEL = {"JPEG": 4, "MPO": 4, "PNG": 5, "BMP": 4, "WEBP": 18}
_BYTES_OF_PROGRESSIVE_PIXEL = 10
LARGEST_DECODING = 256 * 1024 * 1024  # bytes; 67 million pixels of a plain JPEG or PNG
SUPPORTED = "JPEG, PNG, WebP or BMP"
_EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", *JPEG_EXTENSIONS),
    "MPO": (
        ".jpg",
        ".jpeg",
        *JPEG_EXTENSIONS,
    ),  # what telephones call .jpg: a JPEG with a second picture behind it
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
}
# No other decoder ever sees a byte of a file, whatever its name says.
_OPENED = ("JPEG", "PNG", "WEBP", "BMP")
_FOREIGN = (
    ("HEIC", re.compile(rb"....ftyp(?:heic|heix|hevc|heim|heis|mif1|msf1)", re.DOTALL)),
    ("AVIF", re.compile(rb"....ftypavi[fs]", re.DOTALL)),
    ("a video", re.compile(rb"....ftyp|\x1aE\xdf\xa3", re.DOTALL)),
    ("JPEG XL", re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL ")),
    ("JPEG 2000", re.compile(rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51")),
    ("GIF", re.compile(rb"GIF8")),
    ("TIFF", re.compile(rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+")),
    ("PDF", re.compile(rb"\s*%PDF-")),
    ("PSD", re.compile(rb"8BPS")),
    (
        "SVG",
        re.compile(
            rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*(?:<!DOCTYPE svg[^>]*>\s*)?<svg",
            re.DOTALL,
        ),
    ),
)
_EXIF_ORIENTATION = 0x0112
# Colour profiles, by what their descriptions hold; where numbers mean far other colours than sRGB's, and where little.
_FAR_FROM_SRGB = (
    "Adobe RGB",
    "ProPhoto",
    "ROMM RGB",
    "Wide Gamut",
    "Rec2020",
    "Rec. 2020",
    "BT.2020",
    "BT2020",
)
_NEAR_SRGB = ("Display P3", "DCI-P3", "DCI(P3)")
_MOST_OF_A_PROFILE = 64 * 1024  # bytes; descriptions stand near the beginning


def check(path: str, content: bytes) -> tuple[Size | None, list[Finding]]:
    """Width and height in pixels as the trainer sees them, or None where the image cannot be trained on."""
    if not content:
        return None, [error("image-empty", path, "The file has no bytes.", "Upload the image again.")]
    # Pillow loads every plugin it has where it lacks one of those that are asked for.
    from PIL import Image, ImageFile, UnidentifiedImageError, WebPImagePlugin  # noqa: F401

    Image.MAX_IMAGE_PIXELS = None  # asked below, before a pixel is decoded, and an error
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(content), formats=_OPENED) as image:
            if problem := _too_large(path, image):
                return None, [problem]
            image.load()
            findings = _about(path, image)
            return (None if any(f.severity == "error" for f in findings) else image.size), findings
    except UnidentifiedImageError:
        return None, [_not_opened(path, content)]
    except Exception as cause:  # Pillow's decoders raise whatever a damaged file makes them
        truncated = "truncated" in str(cause).lower()
        code, what = (
            ("image-truncated", "ends too early") if truncated else ("image-unreadable", "cannot be decoded")
        )
        message = f"The image {what} ({_first_line(cause)})."
        return None, [error(code, path, message, "Export and upload it again.")]


def unsupported(path: str, what: str) -> Finding:
    """The finding for a format that the trainer does not read; `what` names it."""
    message = f"{what}, which cannot be trained on."
    return error("image-format-unsupported", path, message, f"Save it as {SUPPORTED}.")


def _too_large(path: str, image: Image) -> Finding | None:
    name = str(image.format)
    width, height = image.size
    each = _BYTES_OF_PROGRESSIVE_PIXEL if image.info.get("progressive") else _BYTES_OF_PIXEL[name]
    if width * height * each <= LARGEST_DECODING:
        return None
    most = LARGEST_DECODING // each // 1_000_000
    kind = f"progressive {name}" if image.info.get("progressive") else name
    message = f"The image claims {width} × {height} pixels; {most} million are the limit of a {kind}."
    return error("image-too-large", path, message, "Scale it down; training needs one or two million.")


def _not_opened(path: str, content: bytes) -> Finding:
    name = next((name for name, begins in _FOREIGN if begins.match(content[:2048])), None)
    if name is not None:
        return unsupported(path, f"The content is {name}")
    return error("image-unreadable", path, "This is not an image.", f"Save it again as {SUPPORTED}.")


def _about(path: str, image: Image) -> list[Finding]:
    findings: list[Finding] = []
    name = str(image.format)
    extension = PurePosixPath(path).suffix.lower()
    if extension not in _EXTENSIONS[name]:
        message = f"The name says {extension}, the content is {name}."
        remedy = f"Rename it to end in {_EXTENSIONS[name][0]}; training works either way."
        findings.append(warning("image-extension-differs", path, message, remedy))
    if name != "MPO" and getattr(image, "n_frames", 1) > 1:
        message = f"The image is an animation of {image.n_frames} frames; only the first is trained on."  # type: ignore[attr-defined]
        remedy = "Save the frames that are meant as images of their own."
        findings.append(warning("image-animated", path, message, remedy))
    orientation = _orientation(image)
    if orientation != 1:
        message = (
            f"EXIF says that the image is turned or mirrored ({orientation}); the trainer does not look."
        )
        remedy = "Save it upright, for example with: mogrify -auto-orient, or jhead -autorot."
        findings.append(warning("image-orientation", path, message, remedy))
    return findings + _about_colours(path, image)


def _about_colours(path: str, image: Image) -> list[Finding]:
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        message = f"The image has more than 8 bits a pixel (mode {mode}); the trainer makes it all but white."
        return [error("image-16-bit", path, message, "Save it with 8 bits a channel.")]
    findings: list[Finding] = []
    if mode == "CMYK":
        message = "The image is CMYK; the trainer turns it into RGB without its colour profile."
        findings.append(
            warning("image-cmyk", path, message, "Convert it to sRGB, so that you see its colours.")
        )
    elif name := _profile(image, _FAR_FROM_SRGB):
        message = f"The colours are {name}'s; the trainer takes them for sRGB's, and so learns them too pale."
        findings.append(warning("image-colour-profile", path, message, "Convert it to sRGB."))
    elif name := _profile(image, _NEAR_SRGB):
        message = (
            f"The colours are {name}'s; the trainer takes them for sRGB's, and so learns them a little pale."
        )
        findings.append(note("image-colour-profile", path, message, "Convert it to sRGB, if that matters."))
    if mode in ("P", "PA"):
        message = "The image has a palette of at most 256 colours; what was lost to it is trained on."
        findings.append(note("image-palette", path, message, "Use the original, if there is one."))
    if (share := _transparent_share(image)) > 0:
        message = f"{share:.0%} of the image is transparent; the trainer shows whatever colour lies beneath."
        remedy = "Put it on a background, unless alpha_mask is set."
        findings.append(warning("image-transparent", path, message, remedy))
    return findings


def _profile(image: Image, names: Sequence[str]) -> str | None:
    """The one that the embedded profile's description holds, in ASCII or, since version 4, in UTF-16.

    Looked for, not parsed: no file reaches a further library.
    """
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes):
        return None
    begin = profile[:_MOST_OF_A_PROFILE]
    return next((n for n in names if n.encode() in begin or n.encode("utf-16-be") in begin), None)


def _transparent_share(image: Image) -> float:
    """Share of the pixels that are more than half transparent; most images with an alpha channel have none."""
    if "transparency" not in image.info and "A" not in image.getbands():
        return 0.0
    alpha = image.getchannel("A") if "A" in image.getbands() else image.convert("RGBA").getchannel("A")
    if alpha.getextrema()[0] >= 128:  # type: ignore[operator]
        return 0.0
    return max(0.01, sum(alpha.histogram()[:128]) / (image.width * image.height))


def _orientation(image: Image) -> int:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF hinders nobody: the trainer does not read it
        return 1
    return orientation if orientation in range(1, 9) else 1


def _first_line(cause: Exception) -> str:
    return (str(cause).splitlines() or [type(cause).__name__])[0][:120]
