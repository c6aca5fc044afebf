"""Whether a dataset and what training writes beside it fit the disk of the training job."""

from __future__ import annotations

import gzip
import importlib.resources
import json
from dataclasses import replace
from typing import Any

import pytest

from fine_tuning import dataset
from fine_tuning.instances import Disk, known, smallest_disk
from fine_tuning.layout import lay_out
from tests.functions_data import file

IMAGES = 1_000
DISK = Disk("ml.p3.2xlarge", 50, is_own=False)


@pytest.mark.parametrize(
    ("values", "latents"),
    [
        ({"resolution": "1024,1024"}, IMAGES * 262_144),
        ({"resolution": "1024,1024", "flip_aug": True}, IMAGES * 524_288),
        ({"resolution": "512"}, IMAGES * 65_536),
        ({"resolution": "none"}, 0),  # planning tells of it
    ],
)
def test_the_latents_that_training_keeps_need_their_place(values: dict[str, Any], latents: int) -> None:
    room = 50 * 1000**3 - dataset.BESIDE_DATASET - latents

    def codes(size: int) -> list[str]:
        files = [replace(file(f"1_cat/{number}.jpg"), size=0) for number in range(IMAGES)]
        files.append(replace(file("1_cat/0.txt"), size=size))
        layout = lay_out(files, 1, "cat", ".txt")
        found = dataset.judge(files, layout, {"caption_extension": ".txt", **values}, "cat", DISK)
        return [each.code for each in found if each.code == "dataset-too-large"]

    assert codes(room) == []
    assert codes(room + 1) == ["dataset-too-large"]


def test_an_instance_with_a_disk_of_its_own_gets_no_volume() -> None:
    assert smallest_disk(["ml.g5.8xlarge"], 50) == Disk("ml.g5.8xlarge", 900, is_own=True)
    assert smallest_disk(["ml.g5.8xlarge", "ml.g5.xlarge"], 50) == Disk("ml.g5.xlarge", 250, is_own=True)
    assert smallest_disk(["ml.g5.xlarge"], 16_384).size_gb == 250
    # Not known here: what the stack asks for is what is sure.
    assert smallest_disk(["ml.g5.8xlarge", "ml.p3.2xlarge"], 50) == DISK


def test_the_remedy_is_one_that_changes_the_disk_that_is_too_small() -> None:
    def remedy(disk: Disk) -> str:
        files = [replace(file("1_cat/0.jpg"), size=2_000 * 1000**3), file("1_cat/0.txt")]
        found = dataset.judge(files, lay_out(files, 1, "cat", ".txt"), {}, "cat", disk)
        (finding,) = (each for each in found if each.code == "dataset-too-large")
        return f"{finding.message} {finding.remedy}"

    assert "50 GB of ml.p3.2xlarge's volume" in remedy(DISK)
    assert "raise TrainingVolumeSizeInGB" in remedy(DISK)
    own = remedy(Disk("ml.g5.8xlarge", 900, is_own=True))
    assert "900 GB of ml.g5.8xlarge's own disk" in own
    assert "instance_types" in own
    assert "TrainingVolumeSizeInGB" not in own


def test_the_disks_are_those_that_ec2_tells_of() -> None:
    listed = importlib.resources.files("moto") / "ec2" / "resources" / "instance_types.json.gz"
    told = json.loads(gzip.decompress(listed.read_bytes()))
    for instance in known():
        stored = told[instance.name.removeprefix("ml.")].get("InstanceStorageInfo", {})
        assert instance.disk_gb == stored.get("TotalSizeInGB", 0), instance.name
