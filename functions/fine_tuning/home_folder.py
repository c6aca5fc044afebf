"""Which folder of a dataset holds what is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from fine_tuning import folder_names
from fine_tuning.findings import Finding, error, warning
from fine_tuning.inventory import InspectedFile


def home_of(by_folder: Mapping[str, Sequence[InspectedFile]]) -> tuple[str | None, list[Finding]]:
    """Where the folders lie that say their repeats: beside the manifest, or in one folder such as kohya_ss' `img`.

    None where none says them, where they lie in several of which none holds all, and where as many images lie beside
    the manifest, or more in other folders: a picture left there is no dataset, nor are a few in a folder of old ones.
    """
    named = [folder for folder in _with(by_folder, _is_image) if _is_named(folder)] or [
        folder for folder in _with(by_folder, _is_picture) if _is_named(folder)
    ]
    parents = sorted({str(PurePosixPath(folder).parent) for folder in named})
    home = next((it for it in parents if all(folder_names.is_within(other, it) for other in parents)), None)
    if not parents or home == ".":
        return home, []
    inside, beside = _images(by_folder, named), _images(by_folder, ["."])
    if beside and inside:
        flat = home is None or beside >= inside
        message = (
            f"Images lie beside the manifest ({beside}) and in <repeats>_<token> folders in {_listed(parents)} "
            f"({inside}); those {'beside the manifest' if flat else f'in {home}'} are trained on."
        )
        remedy = "Take out those that are not meant, or put all into <repeats>_<token> folders beside the manifest."
        return None if flat else home, [warning("layout-guessed", "", message, remedy)]
    if home is None and not beside:
        message = f"Folders named <repeats>_<token> lie in {len(parents)} folders: {_listed(parents)}."
        remedy = "Put those to train on into one folder, or beside the manifest."
        return None, [error("layout-unclear", "", message, remedy)]
    outside = [
        it for it in _with(by_folder, _is_image) if home is None or not folder_names.is_within(it, home)
    ]
    return (None if outside and _images(by_folder, outside) > inside else home), []


def flat_folder(by_folder: Mapping[str, Sequence[InspectedFile]]) -> tuple[str | None, list[Finding]]:
    """The one folder that stands for the dataset when none says its repeats.

    The manifest's own, or the only other.
    """
    candidates = _with(by_folder, _is_image) or _with(by_folder, _is_picture)
    if "." in candidates:
        return ".", []
    if len(candidates) <= 1:
        return next(iter(candidates), None), []
    where = f"The images lie in {len(candidates)} folders"
    message = f"{where}, none of them named <repeats>_<token>: {_listed(candidates)}."
    example = next(filter(None, map(folder_names.almost, candidates)), "10_sks cat")
    remedy = f"Name each folder so, for example {example}, or put all images beside the manifest."
    return None, [error("layout-unclear", "", message, remedy)]


def _with(
    by_folder: Mapping[str, Sequence[InspectedFile]], wanted: Callable[[InspectedFile], bool]
) -> list[str]:
    """The folders that hold such a file and are not for regularization."""
    return sorted(
        folder
        for folder, files in by_folder.items()
        if not folder_names.is_for_regularization(folder) and any(map(wanted, files))
    )


def _is_named(folder: str) -> bool:
    """Also beside the manifest by a year, which is told; further below nobody means one."""
    repeats = folder_names.repeats_of(folder)
    below = str(PurePosixPath(folder).parent) != "."
    return repeats is not None and not (below and repeats > folder_names.MOST_REPEATS)


def _images(by_folder: Mapping[str, Sequence[InspectedFile]], folders: Iterable[str]) -> int:
    return sum(_is_image(file) for folder in folders for file in by_folder.get(folder, ()))


def _is_image(file: InspectedFile) -> bool:
    return file.kind == "image"


def _is_picture(file: InspectedFile) -> bool:
    """An image, or one of a format that the trainer does not read, and that its user meant to be trained on."""
    return file.kind != "caption"


def _listed(folders: Sequence[str]) -> str:
    shown = ", ".join("beside the manifest" if folder == "." else folder for folder in folders[:3])
    return f"{shown} and {len(folders) - 3} more" if len(folders) > 3 else shown
