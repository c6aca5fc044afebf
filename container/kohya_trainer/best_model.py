"""The weights of the best validation, kept beside the checkpoints so that they survive an interruption."""

import math
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
    """Beside the best ones before: a restart goes on from a state, and none is kept of this step yet."""
    path = _place(folder, step)
    copy_whole(written, path)
    written.unlink()
    return BestModel(step, loss, path)


def drop_all_but(best: BestModel) -> None:
    """When a state is kept that knows of it."""
    for other in best.path.parent.glob("best-*.safetensors"):
        if other != best.path:
            other.unlink()


def find_best(validations: LossHistory) -> BestModel | None:
    """After a restart; None where SageMaker has not copied the best one of the kept steps yet."""
    told = [entry for entry in validations.entries if math.isfinite(float(entry["loss"]))]
    best = min(told, key=lambda entry: float(entry["loss"]), default=None)
    if best is None or not _place(validations.path.parent, best["step"]).is_file():
        return None
    return BestModel(best["step"], best["loss"], _place(validations.path.parent, best["step"]))


def waited(validations: LossHistory, best: BestModel | None) -> int:
    """Validations since the best one."""
    return sum(1 for entry in validations.entries if best and entry["step"] > best.step)


def _place(folder: Path, step: int) -> Path:
    return folder / f"best-{step:08d}.safetensors"
