"""Samples and models in between, kept beside the states. A restart goes on from a state and makes only later ones,
because the hooks save a state when all that belongs to its step has been made.
"""

import re
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from kohya_trainer.samples import step_of
from kohya_trainer.staging import sha256_of

SAMPLES = "sample"
_STEP = re.compile(r"-step(\d{8})\.safetensors$")
# Size in bytes, and when it was written, in nanoseconds.
Stamp = tuple[int, int]


@dataclass(frozen=True)
class Copy:
    """Of a file as it was at `stamp`. `sha256`, of what was copied, comes when the copy is whole; it is None where the
    trainer had removed the file by then.
    """

    stamp: Stamp
    sha256: "Future[str | None]"


class ResultKeeper:
    """Copies what the trainer writes as it appears, in a thread: a large model takes seconds, and who copies must not
    keep a trainer waiting that was told to save.

    final: the name of the model that is not in between. listed: what `bring_back` has brought, name → sha256.
    """

    def __init__(self, output: Path, kept: Path, final: str, listed: Mapping[str, str]) -> None:
        self._output, self._kept, self._final = output, kept, final
        self._queue: SimpleQueue[tuple[str, Future[str | None]]] = SimpleQueue()
        # A daemon: once the failure is told, an unfinished copy is of no use.
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._copies: dict[str, Copy] = {}
        for name, stamp in self._present().items():
            if name in listed:
                self._copies[name] = Copy(stamp, Future())
                self._copies[name].sha256.set_result(listed[name])

    def notice(self) -> dict[str, Copy]:
        """What the trainer has written so far, name → its copy. One that was still being written comes once more."""
        before, self._copies = self._copies, {}
        for name, stamp in self._present().items():
            known = before.get(name)
            self._copies[name] = known if known and known.stamp == stamp else self._begin(name, stamp)
        return dict(self._copies)

    def drop_removed(self) -> None:
        """What the trainer keeps no longer."""
        for path in _results(self._kept):
            if path.relative_to(self._kept).as_posix() not in self._copies:
                path.unlink()

    def _begin(self, name: str, stamp: Stamp) -> Copy:
        copy = Copy(stamp, Future())
        self._queue.put((name, copy.sha256))
        if not self._thread.is_alive():
            self._thread.start()
        return copy

    def _work(self) -> None:
        while True:
            name, sha256 = self._queue.get()
            try:
                copy_whole(self._output / name, self._kept / name)
                sha256.set_result(sha256_of(self._kept / name))
            except FileNotFoundError:  # the trainer removes its older models
                sha256.set_result(None)
            except OSError as error:
                sha256.set_exception(error)

    def _present(self) -> dict[str, Stamp]:
        present: dict[str, Stamp] = {}
        for path in _results(self._output):
            try:
                state = path.stat()
            except FileNotFoundError:  # removed since it was listed
                continue
            if path.name != self._final:
                present[path.relative_to(self._output).as_posix()] = state.st_size, state.st_mtime_ns
        return present


def wait_for(copies: Mapping[str, Copy], seconds: float) -> None:
    """Until all are whole, or for so long."""
    wait([copy.sha256 for copy in copies.values()], seconds)


def whole(copies: Mapping[str, Copy]) -> dict[str, str]:
    """Name → sha256 of the copies that are."""
    done = {name: copy.sha256 for name, copy in copies.items() if copy.sha256.done()}
    return {
        name: digest
        for name, sha256 in done.items()
        if not sha256.exception() and (digest := sha256.result())
    }


def bring_back(kept: Path, output: Path, listed: Mapping[str, str], done: int) -> list[str]:
    """After a restart that goes on after step `done`, what is listed with its state, name → sha256. Everything else is
    dropped: what is of later steps is made again; and the folder may hold what was deleted in it once, or was made by
    another run, because it is restored from S3, where nothing need have been deleted.

    Returns the names of what is listed and not there, or differs.
    """
    missing = {name for name in listed if not _later(Path(name), done)}
    for path in [path for path in kept.rglob("*") if path.is_file()]:
        name = path.relative_to(kept).as_posix()
        if name in missing and sha256_of(path) == listed[name]:
            copy_whole(path, output / name)
            missing.remove(name)
        else:
            path.unlink()
    return sorted(missing)


def copy_whole(source: Path, target: Path) -> None:
    """The name appears when the file is whole: SageMaker copies the folder to S3 whenever it likes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _results(folder: Path) -> list[Path]:
    return [*folder.glob("*.safetensors"), *(folder / SAMPLES).glob("*.png")]


def _later(path: Path, done: int) -> bool:
    """A model of a later epoch is written again under its name."""
    if path.suffix == ".png":
        step = step_of(path.name)
        return step is None or step > done
    match = _STEP.search(path.name)
    return match is not None and int(match[1]) > done
