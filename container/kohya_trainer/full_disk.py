"""Which disk is full: a training machine has several, and what makes room differs from one to another."""

import shutil
from pathlib import Path

from kohya_trainer.environment import Folders
from kohya_trainer.errors import TrainerFailedError
from kohya_trainer.failure import DISK_FULL

SYSTEM = Path("/")
# An instance with NVMe gets no other volume (SageMaker's API reference, ResourceConfig.VolumeSizeInGB).
_OF_TRAINING = (
    "Save fewer states and models, or raise TrainingVolumeSizeInGB; where the instance type has an NVMe disk of its "
    "own that number changes nothing, and a larger type is needed."
)
_OF_SYSTEM = "Nothing that a run writes belongs there: report the last log lines."


def full_disk(folders: Folders) -> TrainerFailedError:
    """The failure for the file system with the least room, in GB of 10⁹ bytes; looked at before anything is deleted."""
    # Of one file system the first folder is named.
    places = (folders.work, folders.checkpoints, folders.model, SYSTEM)
    place, usage = min(((place, shutil.disk_usage(_present(place))) for place in places), key=_free)
    left = f"{usage.free / 1000**3:.1f} of {usage.total / 1000**3:.1f} GB are left on that of {place}"
    return TrainerFailedError(
        DISK_FULL, f"A disk is full: {left}.", _OF_SYSTEM if place == SYSTEM else _OF_TRAINING
    )


def _free(looked_at: "tuple[Path, shutil._ntuple_diskusage]") -> int:
    return looked_at[1].free


def _present(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
