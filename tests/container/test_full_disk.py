"""Work lies on the training volume, and a full disk is told by its name."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from kohya_trainer.environment import Folders, read_folders
from kohya_trainer.full_disk import full_disk

GB = 1000**3


def test_on_sagemaker_work_lies_where_the_training_volume_is_mounted() -> None:
    folders = read_folders({})

    assert folders.checkpoints == Path("/opt/ml/checkpoints")
    assert folders.work.is_relative_to("/tmp")  # /opt/ml itself is on the disk of the system


def test_elsewhere_each_job_has_its_work_below_its_own_root(tmp_path: Path) -> None:
    assert read_folders({"TRAINING_ROOT": str(tmp_path)}).work == tmp_path / "work"


@pytest.mark.parametrize(
    ("free", "told", "remedy"),
    [
        ({"/tmp": 0, "/opt/ml": 0, "/": 20}, "/tmp/training", "TrainingVolumeSizeInGB"),
        ({"/tmp": 400, "/opt/ml": 1, "/": 20}, "/opt/ml/checkpoints", "NVMe"),
        ({"/tmp": 400, "/opt/ml": 400, "/": 0}, "/", "report"),
    ],
)
def test_the_disk_with_the_least_room_is_the_full_one(
    free: dict[str, int], told: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_usage(path: Path) -> SimpleNamespace:
        mount = next(name for name in ("/tmp", "/opt/ml", "/") if path.is_relative_to(name))
        return SimpleNamespace(free=free[mount] * GB, total=900 * GB)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    monkeypatch.setattr(Path, "exists", lambda path: True)

    failure = full_disk(Folders(Path("/opt/ml")))

    least = min(free.values())
    assert failure.kind == "disk-full"
    assert failure.cause == f"A disk is full: {least}.0 of 900.0 GB are left on that of {told}."
    assert remedy in failure.remedy


def test_a_folder_that_was_never_made_is_no_obstacle(tmp_path: Path) -> None:
    assert "GB are left on that of " in full_disk(Folders(tmp_path / "never" / "made")).cause
