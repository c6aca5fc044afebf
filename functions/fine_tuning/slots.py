"""Who may train now: as many runs as the stack allows, the others in the order in which they were dropped.

Pure; aws/slots.py keeps the state in one item of the run table, so that its changes follow one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Slots:
    """`holders`: runs that have a slot. `queue`: run → when it was created, of those that wait (ISO 8601)."""

    holders: frozenset[str] = frozenset()
    queue: Mapping[str, str] = field(default_factory=dict)

    def requested(self, run_id: str, created_at: str) -> Slots:
        """With a run at its place in the queue; unchanged where it waits or has a slot already."""
        if run_id in self.holders or run_id in self.queue:
            return self
        return Slots(self.holders, {**self.queue, run_id: created_at})

    def without(self, run_id: str) -> Slots:
        """Without a run that is over, whether it had a slot or waited."""
        rest = {waiting: at for waiting, at in self.queue.items() if waiting != run_id}
        return Slots(self.holders - {run_id}, rest)

    def granted(self, limit: int) -> Slots:
        """With the free slots given to those who have waited longest.

        A limit that was lowered takes no slot away; the next ones are given when enough have come back.
        """
        free = max(0, limit - len(self.holders))
        next_ones = self.order()[:free]
        return Slots(
            self.holders | set(next_ones),
            {waiting: at for waiting, at in self.queue.items() if waiting not in next_ones},
        )

    def order(self) -> list[str]:
        """Those who wait, the first one first."""
        return sorted(self.queue, key=lambda run_id: (self.queue[run_id], run_id))

    def position(self, run_id: str) -> int | None:
        """Place in the queue, from 1; None where the run does not wait."""
        order = self.order()
        return order.index(run_id) + 1 if run_id in order else None
