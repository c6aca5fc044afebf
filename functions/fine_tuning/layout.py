"""Which folders the trainer must see, and which file stands where in them.

The trainer reads `<repeats>_<class tokens>` folders, one level deep, and passes over every other with a
warning (sd-scripts, library/config_util.py, generate_dreambooth_subsets_config_by_subdirs). Here nothing is
passed over in silence, and a dataset that is one flat folder becomes such a folder.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fine_tuning.findings import Finding, error, warning
from fine_tuning.inspection import REGULARIZATION_FOLDER
from fine_tuning.inventory import InspectedFile, stem_of

_REPEATS_FOLDER = re.compile(r"0*([1-9][0-9]{0,4})(?:_(.*))?", re.DOTALL)
_OUTSIDE_REMEDY = "Move it into a folder named <repeats>_<token>, for example 10_sks cat."


@dataclass(frozen=True)
class Placement:
    """A file of the dataset and its name inside the trainer's folder."""

    source: str
    target: str


@dataclass(frozen=True)
class TrainingFolder:
    """A folder that the trainer must see.

    Attributes:
        name: `<repeats>_<tokens>`, below `reg/` for regularization images.
        repeats: how often an epoch shows each image.
        files: images and their captions.
        images: the images among them, with their sizes.
    """

    name: str
    repeats: int
    files: tuple[Placement, ...]
    images: tuple[InspectedFile, ...]

    @property
    def is_regularization(self) -> bool:
        return self.name.startswith(REGULARIZATION_FOLDER)

    def as_document(self) -> dict[str, Any]:
        return {"folder": self.name, "files": [{"source": f.source, "target": f.target} for f in self.files]}


@dataclass(frozen=True)
class Layout:
    """Every folder to train on, and what is wrong with how the dataset is laid out."""

    folders: tuple[TrainingFolder, ...]
    findings: tuple[Finding, ...]

    @property
    def images(self) -> list[InspectedFile]:
        """The images to train on; regularization images are not counted."""
        return [image for folder in self.folders if not folder.is_regularization for image in folder.images]


def lay_out(
    files: Sequence[InspectedFile], repeats: int, trigger_word: str | None, caption_extension: str
) -> Layout:
    """The trainer's folders for these files.

    Args:
        files: what was inspected; images without a size are unreadable and left out.
        repeats: for a flat folder.
        trigger_word: class token of a flat folder; `subject` where the manifest gives none.
        caption_extension: what every caption is named for the trainer, which looks for one extension only.
    """
    by_folder: dict[str, list[InspectedFile]] = defaultdict(list)
    for file in files:
        if file.kind != "other":
            by_folder[str(PurePosixPath(file.path).parent)].append(file)
    named = {folder: parsed for folder in by_folder if (parsed := _repeats_of(folder)) is not None}
    findings: list[Finding] = []
    folders: dict[str, tuple[str, int]] = {folder: (folder, count) for folder, count in named.items()}
    if not any(not _is_regularization(folder) and _has_images(by_folder[folder]) for folder in named):
        flat, problem = _flat_folder(by_folder, named)
        if flat is not None:
            folders[flat] = (f"{repeats}_{trigger_word or 'subject'}", repeats)
        findings += problem
    if not findings:
        findings += _outside(by_folder, folders)
    built: list[TrainingFolder] = []
    for folder, (name, count) in sorted(folders.items()):
        placed, problems = _place(by_folder[folder], caption_extension)
        findings += problems
        images = tuple(f for f in by_folder[folder] if f.kind == "image" and f.width)
        if images:
            built.append(TrainingFolder(name, count, tuple(placed), images))
    return Layout(tuple(built), tuple(findings))


def _repeats_of(folder: str) -> int | None:
    """The repeats that a folder's name says, None for a folder that the trainer passes over."""
    parts = folder.split("/")
    if parts[0] == "reg" and len(parts) == 2:
        parts = parts[1:]
    match = _REPEATS_FOLDER.fullmatch(parts[0]) if len(parts) == 1 else None
    return int(match[1]) if match else None


def _is_regularization(folder: str) -> bool:
    return f"{folder}/".startswith(REGULARIZATION_FOLDER)


def _has_images(files: Iterable[InspectedFile]) -> bool:
    return any(file.kind == "image" for file in files)


def _flat_folder(
    by_folder: dict[str, list[InspectedFile]], named: dict[str, int]
) -> tuple[str | None, list[Finding]]:
    """The one folder that stands for the dataset when none says its repeats.

    The manifest's own, or the only other.
    """
    candidates = [
        folder
        for folder, files in by_folder.items()
        if folder not in named and not _is_regularization(folder) and _has_images(files)
    ]
    if "." in candidates:
        return ".", []
    if len(candidates) == 1:
        return candidates[0], []
    if not candidates:
        return None, []
    message = (
        f"The images lie in {len(candidates)} folders, none of which says how often to repeat its images."
    )
    remedy = (
        "Name each folder <repeats>_<token>, for example 10_sks cat, or put all images beside the manifest."
    )
    return None, [error("layout-unclear", "", message, remedy)]


def _outside(by_folder: dict[str, list[InspectedFile]], folders: dict[str, tuple[str, int]]) -> list[Finding]:
    return [
        warning(
            "file-outside-layout",
            file.path,
            "No folder that is trained on holds this file; it is not used.",
            _OUTSIDE_REMEDY,
        )
        for folder, files in by_folder.items()
        if folder not in folders
        for file in files
    ]


def _place(files: Sequence[InspectedFile], caption_extension: str) -> tuple[list[Placement], list[Finding]]:
    """The images, and one caption for each under the extension that the trainer looks for."""
    findings: list[Finding] = []
    images = [file for file in files if file.kind == "image" and file.width]
    placed = [Placement(image.path, PurePosixPath(image.path).name) for image in images]
    captions: dict[str, list[InspectedFile]] = defaultdict(list)
    for file in files:
        if file.kind == "caption":
            captions[stem_of(file.path)].append(file)
    image_stems = Counter(stem_of(image.path) for image in images)
    for stem, found in sorted(captions.items()):
        if stem not in image_stems:
            message = "This caption has no image beside it; it is not used."
            remedy = "Upload its image, or remove the caption."
            findings += [warning("caption-without-image", caption.path, message, remedy) for caption in found]
            continue
        # The extension that the configuration names wins; then the order of the alphabet decides, the same
        # every time.
        chosen, *others = sorted(found, key=lambda f: (not f.path.endswith(caption_extension), f.path))
        placed.append(Placement(chosen.path, f"{PurePosixPath(stem).name}{caption_extension}"))
        for other in others:
            message = f"{PurePosixPath(chosen.path).name} is used instead; an image has one caption."
            findings.append(warning("caption-repeated", other.path, message, "Remove one of the two."))
    for stem, count in image_stems.items():
        if count > 1:
            message = f"{count} images share this name and so one caption: {PurePosixPath(stem).name}."
            findings.append(warning("image-name-shared", stem, message, "Give each image a name of its own."))
    return sorted(placed, key=lambda p: p.source), findings
