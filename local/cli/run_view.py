"""A run as it happens, out of its record: a line a status, a bar for the training.

Where stdout is no terminal, plain lines take the place of the bar.
"""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from local.cli.records import Record, moments

WORDS = {
    "RECEIVED": "manifest received",
    "WAITING_FOR_UPLOAD": "waiting until the upload is over",
    "INSPECTING": "decoding every image, reading every caption",
    "PLANNED": "buckets, steps, time and cost computed",
    "WAITING_FOR_IMAGE": "resolving the training image",
    "WAITING_FOR_SLOT": "waiting its turn: as many runs as the stack allows are under way",
    "STARTING": "starting the SageMaker pipeline",
    "WAITING_FOR_CAPACITY": "AWS has no such instance at the moment; it is tried again",
    "TRAINING": "training",
    "VERIFYING": "proving the model",
    "COMPLETED": "completed",
    "REJECTED": "rejected",
    "REPEATED": "the same dataset was run before",
    "FAILED": "failed",
    "STOPPED": "stopped",
}
PLAIN_LINES_OF_PROGRESS = 10


class RunView:
    """Fed with every change of the record; prints each status once and each measured step at most once."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.shown = 0
        self.step = -1
        self.progress = Progress(
            TextColumn("          [bold]step[/]"),
            MofNCompleteColumn(),
            BarColumn(bar_width=30),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self.bar: TaskID | None = None

    def follow(self, records: Iterable[Record]) -> Record:
        """Show them all and return the last."""
        record: Record = {}
        try:
            for record in records:
                self.show(record)
        finally:
            if self.bar is not None:
                self.progress.stop()
        return record

    def show(self, record: Record) -> None:
        changes = moments(record)
        for status, at in changes[self.shown :]:
            detail = detail_of(status, record)
            words = WORDS.get(status, "") + (f": {detail}" if detail else "")
            self.console.print(
                f"{at.astimezone():%H:%M:%S}  {status:<18} {words}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
        self.shown = len(changes)
        self.show_progress(record.get("observation") or {})

    def show_progress(self, observation: Record) -> None:
        step, total = observation.get("step"), observation.get("total")
        if step is None or not total or step <= self.step:
            return
        if self.console.is_terminal:
            if self.bar is None:
                self.progress.start()
                self.bar = self.progress.add_task("", total=int(total))
            self.progress.update(
                self.bar, completed=int(step), total=int(total), description=measures(observation)
            )
            if step >= total:
                self.progress.stop()
        elif step >= total or step - self.step >= total / PLAIN_LINES_OF_PROGRESS:
            self.console.print(
                f"          step {step}/{total}  {measures(observation)}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
        else:
            return
        self.step = int(step)


def measures(observation: Record) -> str:
    """Loss and time to go, as far as they are known."""
    loss, eta = observation.get("loss"), observation.get("eta_seconds")
    parts = [
        f"loss {float(loss):.4f}" if loss is not None else "",
        f"ETA {float(eta):.0f} s" if eta is not None else "",
    ]
    return "  ".join(part for part in parts if part)


def detail_of(status: str, record: Record) -> str:
    plan: Record = record.get("plan") or {}
    observation: Record = record.get("observation") or {}
    failure: Any = record.get("failure") or {}
    match status:
        case "PLANNED":
            seconds, cost = (float(plan.get(key) or 0) for key in ("estimated_seconds", "estimated_cost_usd"))
            steps, instance_type = plan.get("total_steps"), plan.get("instance_type")
            return f"{steps} steps, {seconds:.0f} s on {instance_type}, ${cost:.2f}"
        case "TRAINING":
            return str(observation.get("training_job") or "")
        case "REPEATED":
            return str(record.get("repeats") or "")
        case "REJECTED" | "FAILED" | "STOPPED":
            return " ".join(str(failure[key]) for key in ("cause", "remedy") if failure.get(key))
    return ""
