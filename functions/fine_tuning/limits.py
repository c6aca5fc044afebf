"""What a stack allows its runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fine_tuning.instances import Prices
from fine_tuning.manifest import Manifest
from fine_tuning.own_runs import Correction


@dataclass(frozen=True)
class Limits:
    """What the stack allows, and what its finished runs say about quotes. `max_cost_usd` None: no limit."""

    kohya_version: str
    instance_types: tuple[str, ...]
    volume_gb: int
    max_runtime_seconds: int
    max_cost_usd: float | None
    prices: Prices = field(default_factory=Prices)
    corrections: Mapping[tuple[str, str], Correction] = field(default_factory=dict)


def budget(manifest: Manifest, limits: Limits) -> float | None:
    """US dollars that the run may cost; None: no limit."""
    budgets = [limit for limit in (manifest.max_cost_usd, limits.max_cost_usd) if limit is not None]
    return min(budgets, default=None)
