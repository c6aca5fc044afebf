"""Which folders the trainer must see, and which file stands where in them.

The trainer reads `<repeats>_<class tokens>` folders, one level deep, and passes over every other with a
warning (sd-scripts, library/config_util.py, generate_dreambooth_subsets_config_by_subdirs). Here nothing is
passed over in silence, and a dataset that is one flat folder becomes such a folder.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fine_tuning import folder_names
from fine_tuning.file_kinds import is_foreign_image
from fine_tuning.findings import Finding, error, has_errors, note, warning
from fine_tuning.home_folder import flat_folder, home_of
from fine_tuning.inventory import InspectedFile
from fine_tuning.passed_over import passed_over
from fine_tuning.placement import Placement, place

_ANY_TOKEN = "subject"
_NOT_USED = ("file-outside-layout", "caption-without-image", "caption-repeated")


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
        return self.name.startswith(folder_names.REGULARIZATION_FOLDER)

    def as_document(self) -> dict[str, Any]:
        return {"folder": self.name, "files": [{"source": f.source, "target": f.target} for f in self.files]}


@dataclass(frozen=True)
class Layout:
    """Every folder to train on, and what is wrong with how the dataset is laid out."""

    folders: tuple[TrainingFolder, ...]
    findings: tuple[Finding, ...]

    @property
    def not_used(self) -> frozenset[str]:
        """The files that these findings call not used; whatever else is wrong with them harms nobody."""
        return frozenset(finding.path for finding in self.findings if finding.code in _NOT_USED)

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
    repeats_given: bool = False,
) -> Layout:
    """The trainer's folders for these files.

    Args:
        files: what was inspected; images without a size are unreadable and left out.
        repeats: for a flat folder.
        trigger_word: class token of a flat folder, or of one named by its repeats alone; `subject` where the
            manifest gives none.
        caption_extension: what every caption is named for the trainer, which looks for one extension only.
        preferred_captions: the extension of those that count where an image has several.
        repeats_given: whether the manifest says `repeats`, so that those of a flat folder are no guess.
    """
    by_folder: dict[str, list[InspectedFile]] = defaultdict(list)
    for file in files:
        if file.kind != "other" or is_foreign_image(file.path):
            by_folder[str(PurePosixPath(file.path).parent)].append(file)
    token = trigger_word or _ANY_TOKEN
    folders: dict[str, tuple[str, int]] = {}
    home, findings = home_of(by_folder)
    if home is None and not has_errors(findings):
        home, problems = flat_folder(by_folder)
        findings += problems
        if home is not None:
            folders[home] = (f"{repeats}_{token}", repeats)
            findings += [] if repeats_given else _guessed(home, *folders[home])
    named = _named(by_folder, home or ".", token)
    findings += _below_another(named, home, repeats, repeats_given)
    folders |= named
    if not has_errors(findings):
        findings += [
            passed_over(file.path, folders, home or ".")
            for folder, files in by_folder.items()
            if folder not in folders
            for file in files
        ]
    findings += _without_token(folders) + _too_many_repeats(folders)
    built: list[TrainingFolder] = []
    for folder, (name, count) in sorted(folders.items()):
        wants_captions = not name.startswith(folder_names.REGULARIZATION_FOLDER)
        placed, problems = place(
            files=by_folder[folder],
            caption_extension=caption_extension,
            preferred=preferred_captions or caption_extension,
            wants_captions=wants_captions,
        )
        findings += problems
        images = tuple(f for f in by_folder[folder] if f.kind == "image" and f.width)
        if images:
            built.append(TrainingFolder(name, count, tuple(placed), images))
    return Layout(tuple(built), tuple(findings + _too_many_regularization_images(built)))


def _named(by_folder: Iterable[str], home: str, token: str) -> dict[str, tuple[str, int]]:
    """Folder → its name for the trainer and its repeats: those in `home`, and the nearest `reg` beside or above it."""
    regularized = {folder: folder_names.regularizes(folder) for folder in by_folder}
    nearest = max(
        (of for of in regularized.values() if of and folder_names.is_within(home, of)), default="", key=len
    )
    found: dict[str, tuple[str, int]] = {}
    for folder, of in regularized.items():
        repeats = folder_names.repeats_of(folder)
        if repeats is None:
            continue
        name = PurePosixPath(folder).name
        if of and of == nearest:
            found[folder] = (f"{folder_names.REGULARIZATION_FOLDER}{name}", repeats)
        elif str(PurePosixPath(folder).parent) == home and not folder_names.is_for_regularization(folder):
            found[folder] = (name, repeats)
    taken = {name for name, _ in found.values()}
    for folder, (name, repeats) in found.items():
        if folder_names.is_number(name):
            found[folder] = (_with_token(name, token, taken), repeats)
            taken.add(found[folder][0])
    return found


def _with_token(number: str, token: str, taken: Collection[str]) -> str:
    """A folder that is named by a number alone gets a token: without one its images have no text at all."""
    is_regularization = number.startswith(folder_names.REGULARIZATION_FOLDER)
    name = f"{number.rstrip('_')}_{_ANY_TOKEN if is_regularization else token}"
    while name in taken:
        name += " again"
    return name


def _guessed(folder: str, name: str, repeats: int) -> list[Finding]:
    """A lone folder whose name seems to say other repeats than those that are taken for it."""
    meant = folder_names.almost(folder)
    if meant is None and not folder_names.says_no_repeats(folder):
        return []
    said = "says 0 repeats" if meant is None else "is not <repeats>_<token>"
    message = f"The folder's name {said}; it is trained on as {name}."
    remedy = f'Name it {meant or name}, or write "repeats": {repeats} into the manifest to have it so.'
    return [warning("layout-guessed", folder, message, remedy)]


def _below_another(
    named: dict[str, tuple[str, int]], home: str | None, repeats: int, repeats_given: bool
) -> list[Finding]:
    """A lone folder below another one may be named by its repeats, or be the first session: the manifest's own repeats
    count for it, and a number that is written as one of a row is told.
    """
    lone = [folder for folder in named if str(PurePosixPath(folder).parent) == home != "."]
    if len(lone) != 1:
        return []
    (folder,) = lone
    name, said = named[folder]
    token = name.partition("_")[2]
    if repeats_given:
        named[folder] = (f"{repeats}_{token}", repeats)
        return []
    if not name.startswith("0"):
        return []
    message = f"The folder's name is taken for {said} repeats of {token}."
    remedy = (
        'Write "repeats" into the manifest, or name the folder <repeats>_<token>, for example 10_sks cat.'
    )
    return [warning("layout-guessed", folder, message, remedy)]


def _without_token(folders: Mapping[str, tuple[str, int]]) -> list[Finding]:
    return [
        note(
            "folder-without-token",
            folder,
            f"The folder's name says repeats but no token; {name} is trained on.",
            "Name it <repeats>_<token>, for example 10_sks cat.",
        )
        for folder, (name, _) in folders.items()
        if folder_names.repeats_of(folder) is not None and folder_names.is_number(folder)
    ]


def _too_many_repeats(folders: Mapping[str, tuple[str, int]]) -> list[Finding]:
    findings: list[Finding] = []
    for folder, (name, repeats) in folders.items():
        if repeats > folder_names.MOST_REPEATS:
            year = " Is it a year?" if 1900 <= repeats < 2100 else ""
            message = (
                f"The folder's name says {repeats} repeats; {folder_names.MOST_REPEATS} is the limit.{year}"
            )
            remedy = f"Name it <repeats>_<token> with those that are meant, for example 10_{name.partition('_')[2]}."
            findings.append(error("repeats-too-many", folder, message, remedy))
    return findings


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
