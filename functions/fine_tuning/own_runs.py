"""What this account's own finished runs say about the quote's table.

The trainer's own U-Net and the fast one have a table each, so what is learned of one says nothing about the other. A
run counts for the one that its quote expected, whichever trained: what is learned is how far such quotes are off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from fine_tuning import instances
from fine_tuning.observation import ended_early

LEAST_RUNS = 3
# A run that took far more or less than that was something else: a cached image, a broken clock.
_PLAUSIBLE = (0.1, 10.0)
_LEAST_SPREAD = 0.15


@dataclass(frozen=True)
class Correction:
    """What the table's seconds are multiplied by for one class of GPU and one execution (speed.py).

    Attributes:
        ratio: the median of actual to tabulated seconds over `runs` runs.
        low, high: share of the corrected quote within which those runs lie, 15 % either way at least.
    """

    ratio: float
    runs: int
    low: float
    high: float


def corrections(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Correction]:
    """(GPU class, execution) → correction, of three runs or more: on demand, in one go, with all that the table counts.

    Rehearsals do not count.

    Args:
        records: of the run table; `plan.table_seconds` is what the table of `plan.execution` alone said.
    """
    ratios: dict[tuple[str, str], list[float]] = {}
    for record in records:
        if (found := _ratio(record)) is not None:
            ratios.setdefault(found[0], []).append(found[1])
    return {of: _of(found) for of, found in ratios.items() if len(found) >= LEAST_RUNS}


def _ratio(record: Mapping[str, Any]) -> tuple[tuple[str, str], float] | None:
    plan, observation = record.get("plan") or {}, record.get("observation") or {}
    instance = instances.find(str(plan.get("instance_type")))
    tabulated, actual = plan.get("table_seconds"), observation.get("seconds")
    if record.get("status") != "COMPLETED" or record.get("rehearsal") or instance is None:
        return None
    # Spot is billed for fewer seconds than it trains; a retry or a later rung trains only the rest.
    if plan.get("spot") or observation.get("spot") or record.get("retries") or record.get("attempts"):
        return None
    # The table is of a run that encodes its images itself and makes all of its steps.
    if (record.get("latents") or {}).get("images") or ended_early(observation):
        return None
    if not tabulated or not actual or not _PLAUSIBLE[0] <= actual / tabulated <= _PLAUSIBLE[1]:
        return None
    return (instance.gpu, plan["execution"]), actual / tabulated


def _of(ratios: list[float]) -> Correction:
    middle = median(ratios)
    low, high = min(ratios) / middle, max(ratios) / middle
    return Correction(middle, len(ratios), min(low, 1 - _LEAST_SPREAD), max(high, 1 + _LEAST_SPREAD))
