"""In which order the tests run, and which of them one process runs where several share them.

`./dev test --numprocesses=2 --dist=loadscope --no-loadscope-reorder`; without the options it is one process.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parent
DEMO = "end_to_end/test_demo.py"
# These have one embedded AWS for all of their tests, with processes of its own. Everything else goes file by file.
TOGETHER = (DEMO, "end_to_end/", "embedded_aws/", "faults/")
# The longest begins; beside it goes what needs one processor, and only then the next of them.
ORDER = ("end_to_end/", "container/", "contract/", "integration/", "unit/", "embedded_aws/", DEMO, "faults/")


class Groups(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        path = _relative(nodeid.partition("::")[0])
        return next((part for part in TOGETHER if path.startswith(part)), path)


def pytest_configure() -> None:
    """Whoever ends the tests from outside ends what they have started too, as with Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _place(_relative(item.path)))


def _relative(path: str | Path) -> str:
    return Path(os.path.relpath(path, ROOT)).as_posix()


def _place(path: str) -> int:
    """Stable: the tests of a folder keep their order."""
    part = DEMO if path == DEMO else f"{path.partition('/')[0]}/"
    return ORDER.index(part) if part in ORDER else ORDER.index("unit/")
