"""Lambda: functions with one artifact share its unpacked code, and the bytecode that Python makes of it.

Without that, each of a stack's functions would unpack and compile the same hundred modules at its first call.
"""

import hashlib
import io
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import lambda_svc

from local.embedded_aws.children import Child
from local.embedded_aws.patching import replace, replace_import
from local.embedded_aws.registration import in_background
from local.embedded_aws.settings import settings

_lock = threading.Lock()


def install() -> None:
    replace_import(lambda_runtime, "zipfile", ZipFile=SharedArchive)

    def fetch(*arguments: Any, **more: Any) -> bytes | None:
        content: bytes | None = fetch_as_it_is(*arguments, **more)
        if content:
            in_background(unpacked, content)
        return content

    # As on AWS, code is made ready when a function is created and not when somebody waits for its answer.
    fetch_as_it_is = replace(lambda_svc, "_fetch_code_from_s3", fetch)


class SharedArchive(zipfile.ZipFile):
    """An archive that is unpacked once: whoever unpacks it again is given a link to the same folder."""

    def extractall(self, path: Any = None, members: Any = None, pwd: bytes | None = None) -> None:
        target = Path(path)
        target.rmdir()
        target.symlink_to(unpacked(Path(str(self.filename)).read_bytes()), target_is_directory=True)


def unpacked(archive: bytes) -> Path:
    """The folder that holds the archive's files; Python compiles them in the background."""
    folder = settings().temporary / "lambda-code" / hashlib.sha256(archive).hexdigest()
    with _lock:
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            zipfile.ZipFile(io.BytesIO(archive)).extractall(unfinished)
            unfinished.rename(folder)
            in_background(_compile, folder)
    return folder


def _compile(folder: Path) -> None:
    Child([sys.executable, "-m", "compileall", "-q", str(folder)], {}, folder, lambda line: None).wait(120)
