"""Puts exactly the inspected files where the trainer looks for them, each checked by size and sha256."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kohya_trainer.environment import Folders
from kohya_trainer.errors import DatasetChangedError, InvalidConfigurationError, NoDataError
from kohya_trainer.inputs import OLDER_CONFIGURATION, Inputs, InspectedFile, Placement

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
)  # Kohya's own list, library/train_util.py
CAPTION_SUFFIXES = (".caption", ".txt")  # the first one is the trainer's default
REGULARIZATION = "reg/"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class StagedDataset:
    """`training` is Kohya's train_data_dir; `examples` are the images of an epoch, with their
    repeats; `digest` identifies files and their places together; `contents`: path → sha256 of each file.
    """

    training: Path
    regularization: Path | None
    files: int
    images: int
    examples: int
    digest: str
    contents: Mapping[str, str]


def stage(inputs: Inputs, folders: Folders) -> StagedDataset:
    """Raises DatasetChangedError naming the file, NoDataError when no image is to be trained on."""
    return (
        _as_it_is(inputs, folders)
        if inputs.placements is None
        else _inspected(inputs.placements, inputs, folders)
    )


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file's content, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _inspected(placements: tuple[Placement, ...], inputs: Inputs, folders: Folders) -> StagedDataset:
    root = folders.work / "dataset"
    shutil.rmtree(root, ignore_errors=True)
    training, regularization = root / "train", root / "reg"
    training.mkdir(parents=True)
    taken: dict[Path, str] = {}
    for placement in placements:
        expected = inputs.inventory.get(placement.source)
        if expected is None:
            raise InvalidConfigurationError(
                f"plan.json uses {placement.source}, which is not in the inventory.",
                "Drop the dataset again, so that a new plan is made.",
            )
        base = regularization if placement.folder.startswith(REGULARIZATION) else training
        place = _below(_below(base, placement.folder.removeprefix(REGULARIZATION)), placement.target)
        if place in taken:
            raise InvalidConfigurationError(
                f"plan.json puts two files at {placement.folder}/{placement.target}.",
                "Rename one of the two files.",
            )
        taken[place] = expected.sha256
        _place(_verified(folders.dataset, expected), place)
    images = _images(training)
    if not images:
        raise NoDataError(
            "The plan names no image to train on.", "Add images to the dataset and drop it again."
        )
    lines = (f"{inputs.inventory[p.source].sha256}  {p.folder}/{p.target}" for p in placements)
    return StagedDataset(
        training=training,
        regularization=regularization if regularization.is_dir() else None,
        files=len(taken),
        images=len(images),
        examples=_examples(images),
        digest=_digest(lines),
        contents={str(place): sha256 for place, sha256 in taken.items()},
    )


def _as_it_is(inputs: Inputs, folders: Folders) -> StagedDataset:
    """The older layout: Kohya sees the dataset itself, or the folder in it that its TOML names."""
    named = str(inputs.config.get("train_data_dir", "")).removeprefix("/opt/ml/input/data/dataset").strip("/")
    training = folders.dataset / named
    if not named or ".." in PurePosixPath(named).parts or not training.is_dir():
        training = folders.dataset
    images = _images(training) if training.is_dir() else []
    if not images:
        raise NoDataError(
            "The dataset holds no images in folders named <repeats>_<words>.",
            "Put the images into a folder such as 10_sks cat.",
        )
    _require_seen_captions(images, inputs.config)
    files = sorted(path for path in folders.dataset.rglob("*") if path.is_file())
    contents = {str(path): sha256_of(path) for path in files}
    regularization = folders.dataset / "reg"
    return StagedDataset(
        training=training,
        regularization=regularization if regularization.is_dir() and regularization != training else None,
        files=len(files),
        images=len(images),
        examples=_examples(images),
        digest=_digest(
            f"{contents[str(path)]}  {path.relative_to(folders.dataset).as_posix()}" for path in files
        ),
        contents=contents,
    )


def _verified(dataset: Path, expected: InspectedFile) -> Path:
    path = _below(dataset, expected.path)
    remedy = "Do not change a dataset while it is being trained; drop it again."
    if not path.is_file():
        raise DatasetChangedError(
            f"{expected.path} is missing from the dataset since it was inspected.", remedy
        )
    if path.stat().st_size != expected.size or sha256_of(path) != expected.sha256:
        raise DatasetChangedError(f"{expected.path} has changed since the dataset was inspected.", remedy)
    return path


def _place(source: Path, target: Path) -> None:
    """A hard link costs nothing; a channel on another file system allows only a symbolic link or a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        try:
            target.symlink_to(source)
        except OSError:
            shutil.copyfile(source, target)


def _below(base: Path, name: str) -> Path:
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts:
        raise InvalidConfigurationError(f"{name!r} leaves the dataset's folder.", "Use plain relative paths.")
    return base / parts


def _images(training: Path) -> list[Path]:
    """Those that Kohya would find: directly inside a folder whose name starts with a positive number and `_`."""
    folders = [path for path in training.iterdir() if path.is_dir() and _repeats(path.name) > 0]
    return [path for folder in folders for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]


def _examples(images: Iterable[Path]) -> int:
    """What an epoch shows: the folder's number says how often each is."""
    return sum(_repeats(path.parent.name) for path in images)


def _require_seen_captions(images: Iterable[Path], options: Mapping[str, Any]) -> None:
    """Nobody has judged this dataset; without captions the trainer takes the folder's name and at most warns."""
    named = options.get("caption_extention") or options.get("caption_extension") or CAPTION_SUFFIXES[0]
    wanted = f".{str(named).removeprefix('.')}"
    found = {
        suffix
        for suffix in (wanted, *CAPTION_SUFFIXES)
        if any(image.with_suffix(suffix).is_file() for image in images)
    }
    if found and wanted not in found:
        (other, *_) = sorted(found)
        raise InvalidConfigurationError(
            f"The captions end in {other}, but the trainer looks for {wanted} and would train without them.",
            f'Set caption_extension = "{other}" in {OLDER_CONFIGURATION}.',
        )


def _repeats(folder: str) -> int:
    number, separator, _ = folder.partition("_")
    return int(number) if separator and number.isdecimal() else 0


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest()
