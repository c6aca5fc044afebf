"""Folders that must be gone afterwards."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from local.cli.interruption import postponed


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A new folder below $TMPDIR, removed however the block ends."""
    folder: Path | None = None
    try:
        with postponed():
            folder = Path(mkdtemp(prefix=prefix))
        yield folder
    finally:
        if folder:
            with postponed():
                remove(folder)


def remove(folder: Path, attempts: int = 20) -> None:
    """A process that is being killed may write a last file meanwhile: try again, then complain."""
    for attempt in range(attempts):
        shutil.rmtree(folder, ignore_errors=attempt + 1 < attempts)
        if not folder.exists():
            return
        time.sleep(0.1)
