"""How long each handler takes to import, as a ratio to an empty Powertools handler (Logger, Tracer, Metrics).

    python bench/handler_import.py

Each import is a process of its own, the shortest of several, because only the shortest has no other program
in it. The exit code is 1 when a ratio is above the limit.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FUNCTIONS = Path(__file__).parent.parent / "functions"
LIMIT = 1.5
ROUNDS = 7
EMPTY = """
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit
logger, tracer, metrics = Logger(), Tracer(), Metrics()
@logger.inject_lambda_context
@tracer.capture_lambda_handler
@metrics.log_metrics
def handler(event, context): return {}
"""
MEASURED = "import time\nbegan = time.perf_counter()\n{source}\nprint(time.perf_counter() - began)"


def seconds(source: str) -> float:
    """Wall-clock time of running `source` in a fresh interpreter, start-up of the interpreter not counted."""
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(FUNCTIONS),
        "POWERTOOLS_TRACE_DISABLED": "true",
    }
    program = [sys.executable, "-c", MEASURED.format(source=source)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> int:
    sources = {"(empty)": EMPTY} | {f.stem: f"import {f.stem}" for f in sorted(FUNCTIONS.glob("*.py"))}
    shortest = dict.fromkeys(sources, float("inf"))
    # Round by round, so that a busy moment of the machine hits all alike.
    for _ in range(ROUNDS):
        for name, source in sources.items():
            shortest[name] = min(shortest[name], seconds(source))
    empty = shortest["(empty)"]
    print(f"{'handler':20} {'ms':>7} {'ratio':>6}")
    for name, time in shortest.items():
        print(f"{name:20} {time * 1000:7.1f} {time / empty:6.2f}")
    slow = [name for name, time in shortest.items() if time / empty > LIMIT]
    if slow:
        print(f"above {LIMIT}: {', '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
