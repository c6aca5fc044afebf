"""What the content of a file says: images are decoded, captions are read, each by its own check."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from fine_tuning import caption_check, image_check
from fine_tuning.file_kinds import CAPTION_EXTENSIONS, is_foreign_image, is_litter, kind_of
from fine_tuning.findings import Finding, error, note, warning
from fine_tuning.inventory import InspectedFile, InventoryFile, inspected, with_caption, with_size
from fine_tuning.manifest import DeclaredFile
from fine_tuning.run import TOML_NAME

LARGEST_FILE = 100 * 1024 * 1024  # bytes; one file is held in memory, beside what it decodes to


def inspect(
    file: InventoryFile, content: bytes, declared: DeclaredFile | None, trigger_word: str | None = None
) -> tuple[InspectedFile, list[Finding]]:
    """A file with its digest and what its content says; and what is wrong with it."""
    result = inspected(file, hashlib.sha256(content).hexdigest(), kind_of(file.path))
    findings = _against_declaration(file, result.sha256, declared)
    if result.kind == "image":
        size, problems = image_check.check(file.path, content)
        return (with_size(result, *size) if size else result), findings + problems
    if result.kind == "caption":
        caption, problems = caption_check.check(file.path, content, trigger_word)
        return with_caption(result, caption.tokens, caption.lacks_trigger), findings + problems
    return result, findings + _unusable(file.path)


def read_and_inspect(
    file: InventoryFile,
    read: Callable[[], bytes],
    declared: DeclaredFile | None,
    trigger_word: str | None = None,
) -> tuple[InspectedFile, list[Finding]]:
    """`inspect`, of a file that is read at most once, and not at all where it is too large.

    Unread, it is known by its ETag: it is never trained on, because an image or a caption is refused then, and so is
    whatever the manifest declares the sha256 of.
    """
    if file.size <= LARGEST_FILE:
        return inspect(file, read(), declared, trigger_word)
    result = inspected(file, hashlib.sha256(file.etag.encode()).hexdigest(), kind_of(file.path))
    must_be_read = file.path == TOML_NAME or (declared is not None and declared.sha256 is not None)
    if result.kind == "other" and not must_be_read:
        return result, _against_declaration(file, result.sha256, declared) + _unusable(file.path)
    message = f"The file has {file.size} bytes; {LARGEST_FILE} is the limit."
    remedy = "Scale the image down, or move the file out of the dataset."
    return result, [error("file-too-large", file.path, message, remedy)]


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


def _unusable(path: str) -> list[Finding]:
    if path == TOML_NAME or is_foreign_image(path):
        return []  # each is judged where the whole dataset is known
    if is_litter(path):
        message = "A system or a program left this file behind; it is not used."
        return [note("file-not-used", path, message, "Remove it, so that it costs no time.")]
    expected = ", ".join(CAPTION_EXTENSIONS)
    message = f"This file is neither an image nor a caption ({expected}); it is not used."
    return [warning("file-not-used", path, message, "Remove it, or rename it if it is one.")]


def by_path(declared: Iterable[DeclaredFile]) -> dict[str, DeclaredFile]:
    return {file.path: file for file in declared}
