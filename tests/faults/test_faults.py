"""Whatever fails, the run ends in the truth (docs/reliability.md)."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from tests.faults.catalogue import SCENARIOS
from tests.faults.scene import Outcome


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_a_run_ends_in_the_truth(outcomes: dict[str, Future[Outcome]], name: str) -> None:
    outcome = outcomes[name].result()
    assert outcome.violations == [], outcome.violations
    assert outcome.spared == 0, "a fault never struck"
