"""Our buckets, batches and steps against those of the trainer's own code (trainer_comparison/record.py)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fine_tuning import buckets
from fine_tuning.layout import lay_out
from fine_tuning.schedule import schedule
from tests.functions_data import file
from tests.unit.functions.trainer_comparison.cases import Case, cases

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "trainer_comparison" / "recorded.json").read_bytes()
)
CASES = cases()


def filled(case: Case) -> list[buckets.Bucket]:
    files = [
        file(f"{folder}/{number:03}.png", *size)
        for folder, sizes in case.folders.items()
        for number, size in enumerate(sizes)
    ]
    folders = lay_out(files, 1, None, ".txt").folders
    options = buckets.BucketOptions.of_config(case.config)
    return buckets.fill(folders, options, buckets.HeldBack.of_config(case.config))


def test_the_records_are_of_these_cases() -> None:
    assert list(RECORDED) == [case.name for case in CASES]
    assert len(RECORDED) >= 30


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_buckets_batches_and_steps_are_the_trainers(case: Case) -> None:
    recorded = RECORDED[case.name]
    found = filled(case)
    assert {f"{b.size[0]}x{b.size[1]}": b.images for b in found} == recorded["buckets"]
    per_epoch = buckets.batches(found, case.config.get("train_batch_size", 1))
    assert per_epoch == recorded["batches"]
    assert math.ceil(per_epoch / case.gpus) == recorded["batches_a_process"]
    accumulation = case.config.get("gradient_accumulation_steps", 1)
    length, _ = schedule([{"max_train_epochs": 3}], per_epoch, accumulation, case.gpus)
    assert length.total_steps == recorded["steps_of_3_epochs"] == 3 * recorded["steps_an_epoch"]
