"""Lambda: functions with one artifact share its unpacked code, and the bytecode that Python makes of it.

Without that, each of a stack's functions would unpack and compile the same hundred modules at its first call.
"""

import hashlib
import os
import threading
import zipfile
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime

from local.embedded_aws.patching import replace_import
from local.embedded_aws.settings import settings

_lock = threading.Lock()


def install() -> None:
    replace_import(lambda_runtime, "zipfile", ZipFile=SharedArchive)


class SharedArchive(zipfile.ZipFile):
    """An archive that is unpacked once: whoever unpacks it again is given a link to the same folder."""

    def extractall(self, path: Any = None, members: Any = None, pwd: bytes | None = None) -> None:
        target = Path(path)
        target.rmdir()
        target.symlink_to(self._unpacked(), target_is_directory=True)

    def _unpacked(self) -> Path:
        with Path(str(self.filename)).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        folder = settings().temporary / "lambda-code" / digest
        with _lock:
            if not folder.exists():
                unfinished = folder.with_suffix(f".{os.getpid()}")
                super().extractall(unfinished)
                unfinished.rename(folder)
        return folder
