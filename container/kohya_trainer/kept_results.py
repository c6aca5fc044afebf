"""Samples and models in between, kept beside the states. A restart goes on from a state and makes only later ones,
because the hooks save a state when all that belongs to its step has been made.
"""

import re
import shutil
from pathlib import Path

from kohya_trainer.samples import step_of

SAMPLES = "sample"
_STEP = re.compile(r"-step(\d{8})\.safetensors$")


def keep_results(output: Path, kept: Path, final: str) -> None:
    """Makes `kept` what the trainer has written up to a state; its last model, `final`, is not among it."""
    present = {path.relative_to(output) for path in _results(output) if path.name != final}
    for path in _results(kept):
        if path.relative_to(kept) not in present:
            path.unlink()
    for name in present:
        source, target = output / name, kept / name
        # One that was still being written when the state before was kept comes once more.
        if not target.exists() or target.stat().st_size != source.stat().st_size:
            copy_whole(source, target)


def bring_back(kept: Path, output: Path, done: int) -> None:
    """After a restart that goes on after step `done`; what is of later steps is made again, and dropped here."""
    for path in _results(kept):
        if _later(path, done):
            path.unlink()
        else:
            copy_whole(path, output / path.relative_to(kept))


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
    if done == 0:
        return True
    if path.suffix == ".png":
        step = step_of(path.name)
        return step is None or step > done
    match = _STEP.search(path.name)
    return match is not None and int(match[1]) > done
