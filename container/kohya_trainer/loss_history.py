"""loss.jsonl: one line a step, kept beside the checkpoints so that it survives an interruption."""

import json
from pathlib import Path

from kohya_trainer.progress import Progress

NAME = "loss.jsonl"


class LossHistory:
    """Appends steps; when a run goes on from a state, later steps of the lost part are dropped first."""

    def __init__(self, folder: Path, done: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / NAME
        kept = [line for line in self._lines() if _step(line) <= done] if done else []
        self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def add(self, progress: Progress, seconds: float) -> None:
        """`seconds` since this launch began."""
        entry = {"step": progress.step, "loss": progress.loss, "seconds": round(seconds, 2)}
        if progress.learning_rate is not None:
            entry["learning_rate"] = progress.learning_rate
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []


def _step(line: str) -> float:
    """A half-written line belongs to the lost part."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
