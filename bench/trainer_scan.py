"""Seconds of the trainer's own scan of a folder: sizes, captions, buckets. preflight.py runs it in its Python."""

import sys
import time
from pathlib import Path

sys.path[:0] = [sys.argv[1], str(Path(__file__).parents[1] / "tests/unit/functions/trainer_comparison")]

from record import dataset_group, stub_what_is_missing

stub_what_is_missing()
import library.config_util  # noqa: F401  imports are not counted
import train_network  # noqa: F401  imports are not counted

began = time.perf_counter()
dataset_group(Path(sys.argv[2]), {"resolution": "1024,1024", "enable_bucket": True})
print(time.perf_counter() - began)
