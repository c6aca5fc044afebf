"""The statuses of a run, and which may follow which. Final ones never change again."""

from __future__ import annotations

FINAL = frozenset({"COMPLETED", "REJECTED", "REPEATED", "FAILED", "STOPPED"})

_IN_ORDER = (
    "RECEIVED",
    "WAITING_FOR_UPLOAD",
    "INSPECTING",
    "PLANNED",
    "WAITING_FOR_IMAGE",
    "WAITING_FOR_SLOT",
    "STARTING",
    "TRAINING",
    "VERIFYING",
)
_IN_FLIGHT = frozenset({*_IN_ORDER, "WAITING_FOR_CAPACITY"})
_UP_TO_INSPECTING = frozenset(_IN_ORDER[:3])
_UP_TO_STARTING = frozenset(_IN_ORDER[: _IN_ORDER.index("STARTING") + 1])

# status → the statuses that it may follow. A flow may skip a station (nothing to wait for), never go back.
_FOLLOWS: dict[str, frozenset[str]] = {
    **{status: frozenset(_IN_ORDER[:place]) for place, status in enumerate(_IN_ORDER)},
    # The one way back: a job that got no instance is started again.
    "WAITING_FOR_CAPACITY": frozenset({"STARTING", "TRAINING"}),
    "TRAINING": frozenset({*_IN_ORDER[: _IN_ORDER.index("TRAINING")], "WAITING_FOR_CAPACITY"}),
    "REJECTED": _UP_TO_INSPECTING,
    "REPEATED": _UP_TO_STARTING - _UP_TO_INSPECTING,
    "COMPLETED": frozenset({"TRAINING", "VERIFYING"}),
    "FAILED": _IN_FLIGHT,
    "STOPPED": _IN_FLIGHT,
}

# What each final mail makes of the run.
OF_MAIL = {
    "rejected": "REJECTED",
    "repeated": "REPEATED",
    "completed": "COMPLETED",
    "failed": "FAILED",
    "stopped": "STOPPED",
    "image-missing": "FAILED",
}


def predecessors(status: str) -> frozenset[str]:
    """The statuses that `status` may follow."""
    return _FOLLOWS[status]


def is_final(status: str) -> bool:
    return status in FINAL


def is_in_flight(status: str) -> bool:
    return status in _IN_FLIGHT
