"""The stand-in leaves the other processors to what runs beside it; threads that wait for them would burn the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

THREADS = "import os, numpy\nprint('threads:', len(os.listdir('/proc/self/task')))\n"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux lists them")
def test_the_stand_in_has_one_thread_although_the_hooks_come_before_it(
    root: Any, fake_kohya: Callable[[str], Path]
) -> None:
    assert "threads: 1\n" in root.run(fake_kohya(THREADS)).output
