"""loss.jsonl and validation.jsonl: a line a step, kept beside the checkpoints so that they survive an interruption."""

import json
from pathlib import Path
from typing import Any

NAME = "loss.jsonl"
VALIDATION_NAME = "validation.jsonl"
# Of the newest step in the smoothed loss; the first steps weigh as in their plain average.
WEIGHT = 0.05


class LossHistory:
    """Appends steps; when a run goes on from a state, later steps of the lost part are dropped first."""

    def __init__(self, folder: Path, done: int, name: str = NAME) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / name
        kept = [line for line in self._lines() if _step(line) <= done] if done else []
        self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self.entries: list[dict[str, Any]] = [json.loads(line) for line in kept]

    def add(self, **entry: Any) -> None:
        """One line; what is None is left out."""
        told = {name: value for name, value in entry.items() if value is not None}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")

    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []


class SmoothedLoss:
    """A moving average that a restart takes up where the history left it."""

    def __init__(self, value: float | None, steps: int) -> None:
        self._value, self._steps = value, steps if value is not None else 0

    def add(self, loss: float) -> float:
        self._steps += 1
        weight = max(WEIGHT, 1 / self._steps)
        value = loss if self._value is None else self._value + weight * (loss - self._value)
        # No more digits than the history keeps, so that a restart goes on with the very same number.
        self._value = float(f"{value:.6g}")
        return self._value


def _step(line: str) -> float:
    """A half-written line belongs to the lost part."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
