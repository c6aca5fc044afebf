"""Trainer states below checkpoints/, in two alternating slots; a marker with every file's hash is written
last.

SageMaker copies the folder to S3 while it changes, and restores whatever arrived there. So a slot without
its marker, or with a file that differs from it, does not exist.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kohya_trainer.staging import sha256_of

SLOTS = ("slot-a", "slot-b")
MARKER = "complete.json"


@dataclass(frozen=True)
class Checkpoint:
    """A complete state. `step` counts the whole run; `batches_per_epoch` and `total` are what the trainer
    announced. `results` are the samples and models in between that belong to it: path below results/ → sha256.
    """

    state: Path
    step: int
    total: int
    batches_per_epoch: int
    fingerprint: str
    results: dict[str, str] = field(default_factory=dict)


def fingerprint(options: Mapping[str, Any], dataset: str, processes: int) -> str:
    """Identifies what is being trained: a state of other options or another dataset must not be continued, nor one of
    another number of processes, whose epochs and learning rates count otherwise.
    """
    facts = [dict(options), dataset, *([processes] if processes > 1 else [])]
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class CheckpointStore:
    """Keeps the newest states of one run."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self._looked = False
        self._newest: Path | None = None

    def found(self) -> tuple[list[Checkpoint], bool]:
        """Whole states of this very run, newest first; whether there are others."""
        found = [checkpoint for slot in SLOTS if (checkpoint := _read(self._folder / slot))]
        mine = [checkpoint for checkpoint in found if checkpoint.fingerprint == self._fingerprint]
        mine.sort(key=lambda checkpoint: checkpoint.step, reverse=True)
        self._looked, self._newest = True, mine[0].state.parent if mine else None
        return mine, len(mine) < len(found)

    def keep(
        self, state: Path, step: int, total: int, batches_per_epoch: int, results: Mapping[str, str]
    ) -> Checkpoint:
        """Moves a finished state folder, file by file, into the slot that does not hold the newest state.

        Which one that is was found out at the start: to read it again would take seconds that a signal may not leave.
        """
        if not self._looked:
            self.found()
        slot = next(self._folder / name for name in SLOTS if self._folder / name != self._newest)
        (slot / MARKER).unlink(missing_ok=True)
        shutil.rmtree(slot, ignore_errors=True)
        slot.mkdir(parents=True)
        kept = slot / "state"
        files = _move(state, kept)
        checkpoint = Checkpoint(kept, step, total, batches_per_epoch, self._fingerprint, dict(results))
        _write_marker(slot, {**asdict(checkpoint), "state": kept.name, "files": files})
        self._newest = slot
        return checkpoint

    def add_results(self, results: Mapping[str, str]) -> None:
        """To those of the state that was kept last."""
        assert self._newest is not None  # one was kept
        content = json.loads((self._newest / MARKER).read_bytes())
        _write_marker(self._newest, {**content, "results": {**content["results"], **results}})


def _move(state: Path, kept: Path) -> dict[str, str]:
    """Path below the state → sha256. On SageMaker `kept` is a mount of its own and each file is copied: one by one, so
    that no third state has to fit the disk.
    """
    digests = {}
    for path in sorted(path for path in state.rglob("*") if path.is_file()):
        name = path.relative_to(state)
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, kept / name)
        digests[name.as_posix()] = sha256_of(kept / name)
    shutil.rmtree(state)
    return digests


def _write_marker(slot: Path, content: Mapping[str, Any]) -> None:
    partial = slot / f"{MARKER}.partial"
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(slot / MARKER)


def _read(slot: Path) -> Checkpoint | None:
    try:
        content = json.loads((slot / MARKER).read_bytes())
        state = slot / "state"
        if not content["files"]:
            return None
        if any(sha256_of(state / name) != digest for name, digest in content["files"].items()):
            return None
        numbers = {name: int(content[name]) for name in ("step", "total", "batches_per_epoch")}
        results = {str(name): str(digest) for name, digest in content["results"].items()}
        return Checkpoint(state=state, fingerprint=str(content["fingerprint"]), results=results, **numbers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
