"""The weights of the best validation, kept beside the checkpoints so that they survive an interruption."""

from dataclasses import dataclass
from pathlib import Path

from kohya_trainer.kept_results import copy_whole
from kohya_trainer.loss_history import LossHistory


@dataclass(frozen=True)
class BestModel:
    """Written after `step` with the validation `loss`."""

    step: int
    loss: float
    path: Path


def keep_best(written: Path, folder: Path, step: int, loss: float) -> BestModel:
    """Puts the trainer's file in the place of the best one before."""
    path = _place(folder, step)
    copy_whole(written, path)
    written.unlink()
    for older in folder.glob("best-*.safetensors"):
        if older != path:
            older.unlink()
    return BestModel(step, loss, path)


def find_best(validations: LossHistory) -> BestModel | None:
    """After a restart; None when the best one of the kept steps was replaced in the part that is lost."""
    best = min(validations.entries, key=lambda entry: float(entry["loss"]), default=None)
    if best is None or not _place(validations.path.parent, best["step"]).is_file():
        return None
    return BestModel(best["step"], best["loss"], _place(validations.path.parent, best["step"]))


def waited(validations: LossHistory, best: BestModel | None) -> int:
    """Validations since the best one."""
    return sum(1 for entry in validations.entries if best and entry["step"] > best.step)


def _place(folder: Path, step: int) -> Path:
    return folder / f"best-{step:08d}.safetensors"
