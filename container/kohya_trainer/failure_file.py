"""output/failure, in which SageMaker looks for why a job failed."""

from collections.abc import Sequence
from pathlib import Path

from kohya_trainer.errors import TrainingError

# SageMaker shows the first 1,024 characters of the file between "AlgorithmError: " and ", exit code: 1".
SHOWN = 1024 - 30
LONGEST_CAUSE = 480
LINES_KEPT = 30
# Stands before the lines that do not fit into what is shown: the newest ones say why, so they come first.
EARLIER = "Before these:"


def write_failure(path: Path, error: TrainingError, lines: Sequence[str]) -> None:
    """One sentence, one remedy, then the last log lines: the newest that SageMaker shows, and those before them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"{_one_line(error.cause)}\nRemedy: {_one_line(error.remedy)}\n"
    kept = [line for line in lines if line.strip()][-LINES_KEPT:]
    newest, earlier = _newest(kept, SHOWN - len(head) - len("\n"))
    parts = ["\n".join(newest), "\n".join([EARLIER, *earlier]) if earlier else ""]
    path.write_text("\n".join([head, *(f"{part}\n" for part in parts if part)]), encoding="utf-8")


def _newest(lines: Sequence[str], characters: int) -> tuple[list[str], list[str]]:
    """As many of the last lines as fit, and the others. A last line that is too long by itself is cut."""
    first, left = len(lines), characters
    while first > 0 and len(lines[first - 1]) < left:
        first -= 1
        left -= len(lines[first]) + len("\n")
    if first == len(lines) and lines:
        return [f"{lines[-1][: max(0, characters - 2)]}…"], list(lines)
    return list(lines[first:]), list(lines[:first])


def _one_line(text: str) -> str:
    """What follows the first line is taken for the remedy."""
    return " ".join(text.split())[:LONGEST_CAUSE]
