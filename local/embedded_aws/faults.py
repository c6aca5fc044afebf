"""Faults that a test sets: what a service does on a bad day, done on purpose and as often as was asked.

Nothing happens while none is set. fault_injection.py asks here, at the edges of the services. What waits for `seconds`,
but for a late event, goes on at once when its fault is removed or set anew.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

EFFECTS: Mapping[str, frozenset[str]] = {
    # A request: refused with an error, slow (`seconds`), or its answer lost (`drop`); `afterwards`: it was done. Or its
    # JSON answer has other members (`answer`; over HTTP alone).
    "call": frozenset({"code", "status", "message", "seconds", "drop", "afterwards", "answer"}),
    # An invocation of a Lambda: ended by an error of Lambda's own, or with its clock fast by `clock` seconds.
    "function": frozenset({"error", "message", "afterwards", "clock", "seconds"}),
    # A delivery by a rule: lost, late (`seconds`), or repeated (`copies`, each `seconds` after the one before).
    "event": frozenset({"drop", "seconds", "copies"}),
    # An execution of a state machine: its time limit in seconds, instead of the definition's.
    "execution": frozenset({"limit"}),
    # CreateTrainingJob's answer.
    "job-request": frozenset({"code", "message"}),
    # A job that never trains: it fails with a reason, is stopped (secondary status), or completes with nothing. Or it
    # waits for its instance for so many seconds (`pending`) before it trains.
    "job": frozenset({"fail", "stop", "complete", "pending"}),
    # A container that says nothing for so many seconds, and only then begins.
    "container": frozenset({"seconds"}),
}
"""Where a fault may strike → what it may do there."""
TICK_SECONDS = 0.1


@dataclass
class Fault:
    """One fault.

    Attributes:
        at: a key of EFFECTS.
        matching: texts that must all occur in what an occasion says of itself (fault_injection.py).
        skip, times: it spares the first `skip` occasions that match and strikes the next `times`.
        seen: occasions that matched so far.
    """

    name: str
    at: str
    matching: tuple[str, ...]
    effect: Mapping[str, Any]
    skip: int = 0
    times: int = 1
    seen: int = field(default=0, compare=False)

    @property
    def struck(self) -> int:
        return max(0, min(self.seen - self.skip, self.times))

    def as_document(self) -> dict[str, Any]:
        return {**vars(self), "matching": list(self.matching), "struck": self.struck}


class FaultError(Exception):
    """A fault that cannot be set; the message says why."""


def fault_of(name: str, document: Mapping[str, Any]) -> Fault:
    """The fault that a document describes: `{"at", "matching", "effect", "skip"?, "times"?, "seen"?}`."""
    unknown = set(document) - {"at", "matching", "effect", "skip", "times", "seen"}
    if unknown:
        raise FaultError(f"{name}: nothing is called {sorted(unknown)}")
    at, matching, effect = str(document.get("at")), document.get("matching"), document.get("effect")
    if at not in EFFECTS:
        raise FaultError(f"{name}: 'at' is one of {sorted(EFFECTS)}, not {at!r}")
    # An empty list would strike everything, also what belongs to another test.
    if not isinstance(matching, list) or not matching or not all(matching):
        raise FaultError(f"{name}: 'matching' is a list of texts, at least one")
    if not isinstance(effect, dict) or not effect or set(effect) - EFFECTS[at]:
        raise FaultError(f"{name}: 'effect' at {at} has some of {sorted(EFFECTS[at])}, not {effect!r}")
    skip, times, seen = (
        int(document.get(key, known)) for key, known in (("skip", 0), ("times", 1), ("seen", 0))
    )
    return Fault(name, at, tuple(matching), effect, skip, times, seen)


class Faults:
    """Those that are set, by name."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}
        self._lock = threading.Lock()

    def put(self, fault: Fault) -> None:
        with self._lock:
            self._faults[fault.name] = fault

    def remove(self, name: str) -> bool:
        with self._lock:
            return self._faults.pop(name, None) is not None

    def all(self) -> list[dict[str, Any]]:
        with self._lock:
            return [fault.as_document() for fault in self._faults.values()]

    def any_at(self, at: str) -> bool:
        return any(fault.at == at for fault in list(self._faults.values()))

    def strike(self, at: str, occasion: Callable[[], str]) -> Mapping[str, Any] | None:
        """The effect of the first fault that strikes; `occasion` is asked only where a fault might."""
        if not self.any_at(at):
            return None
        text = occasion()
        with self._lock:
            for fault in self._faults.values():
                if fault.at == at and all(part in text for part in fault.matching):
                    fault.seen += 1
                    if fault.skip < fault.seen <= fault.skip + fault.times:
                        return fault.effect
        return None

    def ticks(self, effect: Mapping[str, Any]) -> Iterator[float]:
        """The waits of which an effect's `seconds` consist; none follows once its fault is removed or set anew."""
        end = time.monotonic() + effect.get("seconds", 0)
        while (left := end - time.monotonic()) > 0 and self._stands(effect):
            yield min(TICK_SECONDS, left)

    def _stands(self, effect: Mapping[str, Any]) -> bool:
        return any(fault.effect is effect for fault in list(self._faults.values()))


FAULTS = Faults()
