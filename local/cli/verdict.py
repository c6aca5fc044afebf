"""What the demo claims, each claim with whether it held, and how long each stage took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Claim:
    text: str
    holds: bool


@dataclass
class Stopwatch:
    """Stages in the order in which they ended, in seconds."""

    stages: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.stages.append((name, time.monotonic() - begun))

    def between(self, name: str, begun: datetime, ended: datetime) -> float:
        seconds = (ended - begun).total_seconds()
        self.stages.append((name, seconds))
        return seconds


def show_times(
    console: Console, title: str, stages: list[tuple[str, float]], total: float | None = None
) -> None:
    table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column(min_width=44)
    table.add_column(justify="right")
    for name, seconds in stages:
        table.add_row(name, f"{seconds:.1f} s")
    if total is not None:
        table.add_row("in all", f"{total:.1f} s", style="bold")
    console.print(table)


def show_claims(console: Console, claims: list[Claim]) -> bool:
    """Whether all hold."""
    for claim in claims:
        console.print(
            "yes" if claim.holds else "NO ", claim.text, style=None if claim.holds else "red", highlight=False
        )
    return all(claim.holds for claim in claims)
