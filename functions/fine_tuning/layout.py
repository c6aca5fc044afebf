"""Which folders the trainer must see, and which file stands where in them.

The trainer reads `<repeats>_<class tokens>` folders, one level deep, and passes over every other with a
warning (sd-scripts, library/config_util.py, generate_dreambooth_subsets_config_by_subdirs). Here nothing is
passed over in silence, and a dataset that is one flat folder becomes such a folder.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fine_tuning.findings import Finding, error, note, warning
from fine_tuning.inspection import REGULARIZATION_FOLDER
from fine_tuning.inventory import InspectedFile
from fine_tuning.placement import Placement, place

_REPEATS_FOLDER = re.compile(r"0*([1-9][0-9]{0,4})(?:_(.*))?", re.DOTALL)
# What people name folders that the trainer passes over: "10 cat", "10-cat", "x10_cat", "cat_10".
_NEARLY_REPEATS = (
    re.compile(r"[xX×]?(?P<repeats>[0-9]{1,4})[xX×]?[ ._-]+(?P<token>.+)"),
    re.compile(r"(?P<token>.+?)[ ._-]+[xX×]?(?P<repeats>[0-9]{1,4})[xX×]?"),
)
_ANY_TOKEN = "subject"


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
    files: Sequence[InspectedFile],
    repeats: int,
    trigger_word: str | None,
    caption_extension: str,
    preferred_captions: str | None = None,
) -> Layout:
    """The trainer's folders for these files.

    Args:
        files: what was inspected; images without a size are unreadable and left out.
        repeats: for a flat folder.
        trigger_word: class token of a flat folder, or of one named by its repeats alone; `subject` where the
            manifest gives none.
        caption_extension: what every caption is named for the trainer, which looks for one extension only.
        preferred_captions: the extension of those that count where an image has several.
    """
    by_folder: dict[str, list[InspectedFile]] = defaultdict(list)
    for file in files:
        if file.kind != "other":
            by_folder[str(PurePosixPath(file.path).parent)].append(file)
    named = {folder: parsed for folder in by_folder if (parsed := _repeats_of(folder)) is not None}
    findings: list[Finding] = []
    token = trigger_word or _ANY_TOKEN
    folders = {folder: (_with_token(folder, token, named), count) for folder, count in named.items()}
    if not any(not _is_regularization(folder) and _has_images(by_folder[folder]) for folder in named):
        flat, problem = _flat_folder(by_folder, named)
        if flat is not None:
            folders[flat] = (f"{repeats}_{token}", repeats)
        findings += problem
    if not findings:
        findings += _outside(by_folder, folders)
    findings += _without_token(folders)
    built: list[TrainingFolder] = []
    for folder, (name, count) in sorted(folders.items()):
        placed, problems = place(
            by_folder[folder], caption_extension, preferred_captions or caption_extension
        )
        findings += problems
        images = tuple(f for f in by_folder[folder] if f.kind == "image" and f.width)
        if images:
            built.append(TrainingFolder(name, count, tuple(placed), images))
    return Layout(tuple(built), tuple(findings + _too_many_regularization_images(built)))


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


def _with_token(folder: str, token: str, named: Iterable[str]) -> str:
    """A folder that is named by a number alone gets a token: without one its images have no text at all."""
    if not _is_number(folder):
        return folder
    name = f"{folder.rstrip('_')}_{_ANY_TOKEN if _is_regularization(folder) else token}"
    while name in named:
        name += " again"
    return name


def _is_number(folder: str) -> bool:
    return folder.rpartition("/")[2].rstrip("_").isdecimal()


def _without_token(folders: dict[str, tuple[str, int]]) -> list[Finding]:
    return [
        note(
            "folder-without-token",
            folder,
            f"The folder's name says repeats but no token; {name} is trained on.",
            "Name it <repeats>_<token>, for example 10_sks cat.",
        )
        for folder, (name, _) in folders.items()
        if _is_number(folder)
    ]


def _too_many_regularization_images(folders: Sequence[TrainingFolder]) -> list[Finding]:
    """The trainer draws regularization images until they are as many as the images to train on, in order."""
    counts = {True: 0, False: 0}
    for folder in folders:
        counts[folder.is_regularization] += folder.repeats * len(folder.images)
    if not counts[False] or counts[True] <= counts[False]:
        return []
    message = (
        f"{counts[True]} regularization images (repeats counted) stand beside {counts[False]} training images; "
        "those that are more are never used."
    )
    return [warning("regularization-unused", "reg", message, "Remove some, or lower their repeats.")]


def _outside(by_folder: dict[str, list[InspectedFile]], folders: dict[str, tuple[str, int]]) -> list[Finding]:
    return [
        warning(
            "file-outside-layout",
            file.path,
            f"The file is not used: {_why_outside(folder)}.",
            _outside_remedy(folder),
        )
        for folder, files in by_folder.items()
        if folder not in folders
        for file in files
    ]


def _why_outside(folder: str) -> str:
    if folder == ".":
        return "it lies beside the folders that are trained on"
    parts = folder.split("/")
    if _repeats_of(parts[0]) is not None or (parts[0] == "reg" and len(parts) > 2):
        return f"the folder {folder} lies too deep, the trainer reads one level"
    if re.match(r"0+(_|$)", parts[-1]):
        return f"the folder {folder} says 0 repeats"
    return f"the folder {folder} does not say how often to repeat its images"


def _outside_remedy(folder: str) -> str:
    name = folder.rpartition("/")[2]
    for pattern in _NEARLY_REPEATS:
        if (match := pattern.fullmatch(name)) and int(match["repeats"]):
            return f"Name the folder {int(match['repeats'])}_{match['token']}."
    return "Move it into a folder named <repeats>_<token>, for example 10_sks cat."
