"""Why a file is not used, and where it would have to lie."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath

from fine_tuning import folder_names
from fine_tuning.file_kinds import kind_of
from fine_tuning.findings import Finding, warning
from fine_tuning.folder_names import REGULARIZATION_FOLDER


def passed_over(path: str, folders: Collection[str], home: str) -> Finding:
    """The finding of a file in none of the folders that are trained on.

    Args:
        folders: those that are, for regularization too.
        home: the folder that they lie in; "." is the manifest's.
    """
    folder = str(PurePosixPath(path).parent)
    if folder_names.is_for_regularization(folder):
        reg = _reg(folder, folders, home)
        why = f"regularization images are looked for in {reg}<repeats>_<class>"
        remedy = _remedy_for_regularization(folder, reg)
    else:
        why, remedy = _why_and_remedy(folder, folders, home)
    if kind_of(path) == "caption" and remedy.startswith("To train"):
        remedy = "Put it beside its image, or remove it."
    return warning("file-outside-layout", path, f"The file is not used: {why}.", remedy)


def _why_and_remedy(folder: str, folders: Collection[str], home: str) -> tuple[str, str]:
    example = _beside(home, "10_sks cat")
    remedy = f"To train on it, move it into a folder named <repeats>_<token>, for example {example}."
    if folder in (".", home):
        return "it lies beside the folders that are trained on", remedy
    above = [other for other in folders if other != "." and folder_names.is_within(folder, other)]
    if above:
        why = f"the folder {folder} lies too deep, the trainer reads one level"
        return why, f"To train on it, move it into {above[0]}."
    if meant := _meant(folder):
        remedy = f"Name the folder {_beside(home, meant)}."
    if folder_names.says_no_repeats(folder):
        return f"the folder {folder} says 0 repeats", remedy
    if folder_names.repeats_of(folder) is not None:
        where = "beside the manifest" if home == "." else f"in {home}"
        return f"the folder {folder} does not lie {where}, as those do that are trained on", remedy
    return f"the folder {folder} does not say how often to repeat its images", remedy


def _reg(folder: str, folders: Collection[str], home: str) -> str:
    """`reg/` where there is one that is used, else where this folder would have to lie with the least change."""
    used = next(filter(None, map(folder_names.regularizes, folders)), None)
    own = folder_names.before_regularization(folder)
    above = own if own is not None and folder_names.is_within(home, own) else "."
    return _beside(used or above, REGULARIZATION_FOLDER)


def _remedy_for_regularization(folder: str, reg: str) -> str:
    """Whoever obeys must not train on the images instead."""
    if folder_names.is_for_regularization(str(PurePosixPath(folder).parent)) and (meant := _meant(folder)):
        return f"Name the folder {reg}{meant}."
    return f"Move it into {reg}<repeats>_<class>, for example {reg}1_cat."


def _meant(folder: str) -> str | None:
    """The folder's own name, written as the trainer reads it."""
    name = PurePosixPath(folder).name
    repeats = folder_names.repeats_of(name)
    if repeats is None:
        return folder_names.almost(name)
    return name if repeats <= folder_names.MOST_REPEATS else None


def _beside(home: str, name: str) -> str:
    return name if home == "." else f"{home}/{name}"
