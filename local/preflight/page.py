"""What a person sees of a judgement."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from fine_tuning.findings import Finding, count_by_code
from fine_tuning.paths import shown
from local.preflight.folder import Judged

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_MOST_ROWS = 50


@contextmanager
def progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar while files are read; nothing of it where nobody watches."""
    columns = (TextColumn("Inspecting"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("inspect", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_findings(console: Console, judged: Judged) -> None:
    findings = [Finding.from_document(document) for document in judged.report["findings"]]
    if not findings:
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 1, 0))
    table.add_column("", no_wrap=True)
    table.add_column("file", overflow="fold", ratio=2)
    table.add_column("what, and what to do", overflow="fold", ratio=5)
    for finding in findings[:_MOST_ROWS]:
        colour = _COLOURS[finding.severity]
        remedy = "" if finding.remedy == "Nothing to do." else f"\n[dim]→ {escape(finding.remedy)}[/dim]"
        place = escape(shown(finding.path)) or "the dataset"
        table.add_row(f"[{colour}]{finding.severity}[/{colour}]", place, f"{escape(finding.message)}{remedy}")
    console.print(table)
    if len(findings) > _MOST_ROWS:
        console.print(f"… and {len(findings) - _MOST_ROWS} more; --json prints all. Counted by code:")
        for code, count in count_by_code(findings).items():
            console.print(f"  {count} × {code}")


def show_plan(console: Console, judged: Judged) -> None:
    facts = judged.report["plan"]
    if facts is None or judged.decision is None:
        return
    buckets, rungs = (Table(box=None, pad_edge=False, header_style="bold") for _ in range(2))
    for name in ("width", "height", "images", "batches"):
        buckets.add_column(name, justify="right")
    for bucket in facts["buckets"]:
        buckets.add_row(*(str(bucket[name]) for name in ("width", "height", "images", "batches")))
    for name in ("instance", "capacity", "hours", "USD, on demand", "ended after, hours"):
        rungs.add_column(name, justify="left" if name in ("instance", "capacity") else "right")
    for rung in judged.decision.rungs:
        cost = "unknown" if rung.estimated_cost_usd is None else f"{rung.estimated_cost_usd:.2f}"
        capacity = "spot" if rung.spot else "on demand"
        hours, limit = rung.estimated_seconds / 3600, rung.max_runtime_seconds / 3600
        rungs.add_row(rung.instance_type, capacity, f"{hours:.2f}", cost, f"{limit:.1f}")
    console.print("Aspect buckets of an epoch, repeats counted:", highlight=False)
    console.print(buckets)
    console.print(f"\n{facts['total_steps']} steps, on the first of these that AWS has:", highlight=False)
    console.print(rungs)
    console.print()


def show_verdict(console: Console, judged: Judged) -> None:
    count = {"error": 0, "warning": 0, "note": 0}
    for document in judged.report["findings"]:
        count[document["severity"]] += 1
    said = ", ".join(
        f"{number} {name}{'' if number == 1 else 's'}" for name, number in count.items() if number
    )
    verdict = "[bold green]accepted[/]" if judged.report["accepted"] else "[bold red]rejected[/]"
    console.print(f"{verdict}: {judged.images} images{', ' if said else ''}{said}", highlight=False)
