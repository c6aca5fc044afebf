"""All GPU checks in one go, within ten minutes on one GPU: fabricates an SDXL checkpoint, trains, breaks, resumes.

    python tests/gpu/verify.py --sd-scripts DIR --vocabulary FILE [--work DIR] [--out DIR] [--within SECONDS]

Needs torch with CUDA and the packages that docs/gpu-verification.md names. Prints a table, writes results.json and the
logs into --out, and exits with 0 only if every check holds. What is not over after --within seconds does not.
"""

import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import checks
import exhaustion
import failures
import older
import validation
from preparation import bench_of, machine, parser
from report import Report, Result
from roots import Bench, kill_all

from kohya_trainer.nvidia_smi import least_memory_gib

Group = Callable[[Bench], Iterator[Result]]
# Side by side; the longest first, then what another one has seen nothing of.
GROUPS: tuple[Group, ...] = (
    exhaustion.no_progress,
    exhaustion.full_disk,
    checks.fast_and_own,
    validation.validated,
    failures.quick_failures,
    checks.latents_kept,
    failures.loss_not_finite,
    failures.out_of_memory,
    checks.interrupted_by_sigterm,
    checks.killed_while_saving,
    checks.whole_run,
    validation.ended_early,
    older.older_version,
    exhaustion.host_memory,
    older.older_layout,
)
# Of a trainer at 512 × 512, with its context; and for most of its time.
GPU_MEMORY_GIB = 21
CORES = 3
# Of ten minutes, what the unpacking before and the end leave.
WITHIN = 560.0


def run_group(group: Group, bench: Bench, report: Report) -> None:
    """In a folder of its own, of which the logs are kept. A group that breaks is a failed check, not the end of the
    others, nor of the rows that it has told before.
    """
    own = replace(bench, work=bench.work / group.__name__)
    own.work.mkdir(exist_ok=True)
    try:
        for result in group(own):
            report.add(result)
    except Exception:
        report.add(Result(group.__name__, False, traceback.format_exc().splitlines()[-1]))
    add_logs(group, bench, report)
    if group not in checks.COMPARED:
        # The states of several runs.
        shutil.rmtree(own.work, ignore_errors=True)


def add_logs(group: Group, bench: Bench, report: Report) -> None:
    for log in sorted((bench.work / group.__name__).glob("*.log")):
        report.add_log(log)


def run_groups(groups: list[Group], bench: Bench, report: Report, until: float) -> set[Group]:
    """Side by side, as many as the machine has room for. `until`, by time.monotonic(), what is not over is told as
    such. Returns those that ended.
    """
    cpus, memory = os.cpu_count() or 1, least_memory_gib()
    together = max(1, min(cpus // CORES, int(memory / GPU_MEMORY_GIB) if memory else cpus))
    # Each trainer would take as many as there are cores, and at each of thousands of small tensors all of them would
    # wait for one whose core another trainer has.
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"{together} side by side", flush=True)
    pool = ThreadPoolExecutor(together)
    running: dict[Future[None], Group] = {
        pool.submit(run_group, group, bench, report): group for group in groups
    }
    ended, late = wait(running, timeout=max(0.0, until - time.monotonic()))
    for future in ended:
        future.result()
    for future in late:
        begun = not future.cancel()
        told = "it was not over" if begun else "its turn did not come"
        report.add(Result(running[future].__name__, False, f"{told} in the time that there was"))
        if begun:
            add_logs(running[future], bench, report)
    return {running[future] for future in ended}


def exit_code(report: Report, began: float, all_ended: bool) -> int:
    """Closes the report of a program that `began` then, by time.monotonic()."""
    held = report.close(machine(), time.monotonic() - began)
    if not all_ended:
        # What was not over would go on with its next runs.
        kill_all()
        os._exit(1)
    return 0 if held else 1


def main() -> int:
    """The exit code."""
    arguments = parser(__doc__, "/tmp/kohya-gpu", "names of groups, separated by commas")
    arguments.add_argument("--older", type=Path, help="kohya_ss v22.6.2; without it that version is left out")
    arguments.add_argument("--within", type=float, default=WITHIN, help="seconds (%(default)s)")
    given = arguments.parse_args()
    began = time.monotonic()
    report = Report(given.out)
    bench = bench_of(given)
    print(f"fabricated after {time.monotonic() - began:.0f} s", flush=True)
    if given.older:
        bench = replace(bench, older_home=given.older.absolute())
    wanted = [group for group in GROUPS if not given.only or group.__name__ in given.only.split(",")]
    ended = run_groups(wanted, bench, report, began + given.within)
    if set(checks.COMPARED) <= ended:
        for result in checks.alike(bench):
            report.add(result)
    return exit_code(report, began, all_ended=len(ended) == len(wanted))


if __name__ == "__main__":
    sys.exit(main())
