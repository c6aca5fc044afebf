"""All GPU checks in one go, within ten minutes on one GPU: fabricates an SDXL checkpoint, trains, breaks, resumes.

    python tests/gpu/verify.py --sd-scripts DIR --vocabulary FILE [--work DIR] [--out DIR]

Needs torch with CUDA and the packages that docs/gpu-verification.md names. Prints a table, writes results.json and the
logs into --out, and exits with 0 only if every check holds.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import checks
import exhaustion
import failures
import older
import validation
from checks import Result
from roots import Bench

# Side by side; the longest first. Each needs at most 16 GB of GPU memory at 512 × 512 (20 while it draws a sample), and
# three cores for most of its time.
GROUPS: tuple[Callable[[Bench], list[Result]], ...] = (
    exhaustion.no_progress,
    checks.fast_and_own,
    validation.validated,
    failures.loss_not_finite,
    exhaustion.full_disk,
    checks.latents_kept,
    validation.ended_early,
    checks.killed_while_saving,
    checks.interrupted_by_sigterm,
    checks.whole_run,
    failures.quick_failures,
    failures.out_of_memory,
    older.older_version,
    exhaustion.host_memory,
    older.older_layout,
)
SIDE_BY_SIDE = 5
PACKAGES = ("torch", "transformers", "diffusers", "accelerate", "safetensors", "numpy")


def prepared_bench(work: Path, sd_scripts: Path, vocabulary: Path, fabricated: Path | None = None) -> Bench:
    """Fabricates the base model in a process of its own, which gives the GPU's memory back; or takes the one
    that an earlier call left.
    """
    home = work / "kohya"
    home.mkdir(parents=True)
    (home / "sd-scripts").symlink_to(sd_scripts)
    script = Path(__file__).parent / "fabricated.py"
    if fabricated is None:
        fabricated = work / "fabricated"
        subprocess.run([sys.executable, script, fabricated, sd_scripts, vocabulary], check=True)
    compile_as_the_image(work / "bytecode", sd_scripts)
    return Bench(work, home, fabricated / "sdxl.safetensors", fabricated / "tokenizers")


def compile_as_the_image(folder: Path, sd_scripts: Path) -> None:
    """Start-up is timed: the image holds the bytecode of everything, and some installers leave none."""
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    packages = [path for path in sys.path if path.endswith("-packages")]
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    command = [sys.executable, "-W", "ignore", "-m", "compileall", "-q", "-j", "0"]
    # Packages hold templates that are no Python.
    subprocess.run([*command, *packages, *given, sd_scripts], check=False, stdout=subprocess.DEVNULL)


def run_group(group: Callable[[Bench], list[Result]], bench: Bench) -> list[Result]:
    """In a folder of its own, of which the logs are kept. A group that breaks is a failed check, not the end of the
    others. Its rows are told at once.
    """
    own = replace(bench, work=bench.work / group.__name__)
    own.work.mkdir(exist_ok=True)
    try:
        results = group(own)
    except Exception:
        results = [Result(group.__name__, False, traceback.format_exc().splitlines()[-1])]
    for log in own.work.glob("*.log"):
        log.replace(bench.work / log.name)
    if group not in checks.COMPARED:
        # A gigabyte and more for each of its states.
        shutil.rmtree(own.work, ignore_errors=True)
    print("\n".join(table(results).splitlines()[2:]), flush=True)
    return results


def machine() -> dict[str, str]:
    """GPU, driver and the versions of what was used."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    gpus = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    found = {"gpu": gpus, "python": sys.version.split()[0], "cpus": str(os.cpu_count())}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def table(results: list[Result]) -> str:
    """Markdown, ready for docs/gpu-verification.md."""
    rows = [
        f"| {'yes' if result.passed else 'NO'} | {result.name} | {result.detail.replace('|', '/')} "
        f"| {f'{result.seconds:.0f}' if result.seconds else ''} |"
        for result in results
    ]
    return "\n".join(["| holds | check | seen | seconds |", "|---|---|---|---|", *rows])


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sd-scripts", type=Path, required=True)
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--older", type=Path, help="kohya_ss v22.6.2; without it that version is left out")
    parser.add_argument("--work", type=Path, default=Path("/tmp/kohya-gpu"))
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument(
        "--fabricated", type=Path, help="a base model that an earlier call left in its --work"
    )
    parser.add_argument("--only", default="", help="names of groups, separated by commas")
    given = parser.parse_args()
    began = time.monotonic()
    work = given.work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    bench = prepared_bench(work, given.sd_scripts.absolute(), given.vocabulary.absolute(), given.fabricated)
    print(f"fabricated after {time.monotonic() - began:.0f} s", flush=True)
    if given.older:
        bench = replace(bench, older_home=given.older.absolute())
    wanted = [group for group in GROUPS if not given.only or group.__name__ in given.only.split(",")]
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "rows.md").unlink(missing_ok=True)

    def run_and_write(group: Callable[[Bench], list[Result]]) -> list[Result]:
        found = run_group(group, bench)
        # Should the machine be taken away before the end.
        with (given.out / "rows.md").open("a", encoding="utf-8") as rows:
            rows.write("\n".join(table(found).splitlines()[2:]) + "\n")
        return found

    # Each trainer would take as many threads as there are cores.
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // SIDE_BY_SIDE))
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        results = [result for found in pool.map(run_and_write, wanted) for result in found]
    if set(checks.COMPARED) <= set(wanted):
        results += checks.alike(bench)
    told = {
        "machine": machine(),
        "seconds": round(time.monotonic() - began),
        "results": [vars(r) for r in results],
    }
    (given.out / "results.json").write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")
    with (given.out / "logs.txt").open("w", encoding="utf-8") as logs:
        for log in sorted(work.glob("*.log")):
            logs.write(f"\n===== {log.stem}\n{log.read_text(encoding='utf-8')}")
    print(json.dumps(told["machine"]))
    print(table(results))
    print(f"{sum(result.passed for result in results)} of {len(results)} hold; {told['seconds']} s in all")
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
