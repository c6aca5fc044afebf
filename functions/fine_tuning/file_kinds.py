"""What a file of a dataset is, and which files belong together, by their names alone."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from fine_tuning.paths import same_name

# What the trainer opens (sd-scripts, library/train_util.py, IMAGE_EXTENSIONS), without regard to case.
TRAINABLE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# Names of plain JPEGs (Windows saves .jfif) that the trainer passes over: staged as .jpg.
JPEG_EXTENSIONS = (".jfif", ".jpe")
# Images that people drop and the trainer passes over: named in a finding instead of being silently ignored.
_FOREIGN_EXTENSIONS = (
    *(
        ".gif",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".avif",
        ".jxl",
        ".jp2",
        ".ico",
        ".tga",
        ".dds",
    ),
    *(".psd", ".xcf", ".svg", ".pdf", ".eps", ".ai", ".exr", ".hdr"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),  # raw files of cameras
)
CAPTION_EXTENSIONS = (".txt", ".caption")
# In small letters. `icon\r`: of a folder with an icon of its own, by macOS.
_LITTER = ("thumbs.db", "desktop.ini", "icon\r", "metadata_cache.json", "picasa.ini")
_LITTER_FOLDERS = ("__MACOSX", "@eaDir")

Kind = Literal["image", "caption", "other"]


def kind_of(path: str) -> Kind:
    """By the file's name alone; reading it may say otherwise."""
    if is_litter(path):
        return "other"
    extension = PurePosixPath(path).suffix.lower()
    if extension in (*TRAINABLE_EXTENSIONS, *JPEG_EXTENSIONS):
        return "image"
    return "caption" if extension in CAPTION_EXTENSIONS else "other"


def is_foreign_image(path: str) -> bool:
    """Whether its name says that it is an image of a format that the trainer does not read."""
    return PurePosixPath(path).suffix.lower() in _FOREIGN_EXTENSIONS and not is_litter(path)


def is_litter(path: str) -> bool:
    """Whether a system leaves such files behind: hidden ones, macOS' `._a.jpg` and `__MACOSX/`, Thumbs.db,
    the thumbnails in Synology's `@eaDir/`.
    """
    parts = path.split("/")
    hidden = any(part.startswith(".") or part in _LITTER_FOLDERS for part in parts)
    return hidden or parts[-1].lower() in _LITTER


def stem_of(path: str) -> str:
    """`10_cat/a.jpg` → `10_cat/a`: what an image and its caption have in common."""
    return str(PurePosixPath(path).with_suffix(""))


def pair_of(path: str) -> str:
    """What an image and its caption have in common when case and the writing of accents are overlooked.

    macOS takes accents apart in names that other systems write composed; Windows keeps any case.
    """
    return same_name(stem_of(path))
