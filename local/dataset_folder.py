"""The files of a dataset's folder: what `./dev drop` uploads and what `./dev plan` judges is one list."""

from collections.abc import Iterator
from pathlib import Path

MANIFEST = "manifest.json"
_FINDERS_ICON = "Icon\r"  # macOS puts it into a folder that has an icon of its own; it is hidden there


class NoDatasetError(Exception):
    """A folder cannot be dropped or judged; the message says why, and what to do."""


def files_of(folder: Path) -> list[Path]:
    """Every file, of linked folders too; hidden ones and the Finder's `Icon` aside.

    Raises NoDatasetError also where it cannot be told what belongs to the dataset.
    """
    if not folder.is_dir():
        raise NoDatasetError(f"{folder} is no folder.")
    if not (folder / MANIFEST).is_file():
        raise NoDatasetError(
            f"{folder} holds no {MANIFEST}, and without it nothing starts. The smallest is "
            '{"version": 1}; examples/photographs/manifest.json shows more.'
        )
    return list(_below(folder, (folder.resolve(),)))


def _below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """In the order of their names.

    Args:
        above: the folders that led here, links resolved: one of them once more would never end.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as cause:
        raise NoDatasetError(
            f"{folder} cannot be read: {cause.strerror}. Allow it, or move it away."
        ) from cause
    for entry in entries:
        if entry.name.startswith(".") or entry.name == _FINDERS_ICON:
            continue
        _refuse_foreign_encoding(entry)
        if entry.is_dir():
            real = entry.resolve()
            if real in above:
                raise NoDatasetError(f"{entry} is a link to a folder that it lies in. Remove the link.")
            yield from _below(entry, (*above, real))
        elif entry.is_file():
            yield entry
        elif entry.is_symlink():
            raise NoDatasetError(f"{entry} is a link to what is not there. Mend or remove it.")
        else:
            raise NoDatasetError(f"{entry} is neither a file nor a folder. Move it out of the dataset.")


def _refuse_foreign_encoding(entry: Path) -> None:
    """Python reads bytes of a name that are not UTF-8 as halves of characters, which nothing can write."""
    try:
        entry.name.encode()
    except UnicodeEncodeError as cause:
        raise NoDatasetError(
            f"The name {entry.name!a} in {entry.parent} is not UTF-8, as happens where a zip file of "
            "Windows is unpacked. Rename it; `convmv -r -f cp850 -t utf-8 --notest` does so for a whole folder."
        ) from cause
