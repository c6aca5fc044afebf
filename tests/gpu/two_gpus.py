"""What takes two GPUs: images a second and the encoding of pictures against one, and a run of two that is interrupted
and goes on.

    python tests/gpu/two_gpus.py --sd-scripts DIR --vocabulary FILE [--work DIR] [--out DIR]

As verify.py, on a machine with two NVIDIA GPUs. Exits with 0 only if every check holds.
"""

import re
import signal
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise

from checks import SIGNAL, STEPS, resumed, told_by
from preparation import bench_of, machine, parser
from report import Report, Result
from roots import Bench, Root, Run, preset, sends
from verify import run_group

LEAST_RATIO = 1.8
BATCH = 4
# As many as the benchmark's start-up is told for.
ENCODED = 64


def root_of(bench: Bench, name: str, gpus: int, images: int = 16, batch: int = BATCH) -> Root:
    """An epoch is a whole number of batches on either number of GPUs; `batch` is each GPU's."""
    variables = {"CHECKPOINT_EVERY_N_STEPS": "10", "CUDA_VISIBLE_DEVICES": ",".join("01"[:gpus])}
    root = Root(bench, name, variables)
    root.add_images(images, 1024)
    root.write_plan({**preset("sdxl-character"), "train_batch_size": batch, "max_train_steps": STEPS})
    return root


def images_per_second(run: Run, images: int) -> float:
    """Of steps of `images`, by the median of what lies between two progress lines: the trainer's own figure is of all
    steps since the start, and the slow first ones differ.
    """
    told = zip(run.lines, run.times, strict=True)
    times = [second for line, second in told if line.startswith("progress ")]
    return images / statistics.median(after - before for before, after in pairwise(times))


def seconds_of_encoding(run: Run) -> float:
    """Until all pictures have their latents, on whichever GPU."""
    began, ended = run.first("caching latents with"), run.first("caching Text Encoder outputs with")
    return (ended or 0.0) - (began or 0.0)


def throughput(bench: Bench) -> Iterator[Result]:
    """One after the other, each alone on the machine."""
    one, two = (root_of(bench, f"on-{gpus}", gpus, ENCODED).run() for gpus in (1, 2))
    if one.code or two.code:
        yield Result("both runs end well", False, f"{told_by(one)}; {told_by(two)}")
        return
    speeds = images_per_second(one, BATCH), images_per_second(two, 2 * BATCH)
    ratio = speeds[1] / speeds[0]
    detail = f"{speeds[0]:.2f} and {speeds[1]:.2f} images/s: {ratio:.2f} times"
    encoding = seconds_of_encoding(one), seconds_of_encoding(two)
    yield Result(f"two GPUs are at least {LEAST_RATIO} times as fast as one", ratio >= LEAST_RATIO, detail)
    yield Result(
        f"two GPUs share {ENCODED} pictures to encode",
        0 < encoding[1] < encoding[0],
        f"{encoding[0]:.1f} and {encoding[1]:.1f} s",
    )


def interrupted(bench: Bench) -> Iterator[Result]:
    """SIGTERM, then a restart with the same checkpoints; a preset's batch of 4 is shared, as a plan has it."""
    root = root_of(bench, "interrupted", 2, batch=2)
    run = root.run(rf"^progress step={SIGNAL} ", sends(signal.SIGTERM))
    kept = re.search(r"The state after step (\d+) is kept", run.failure)
    yield Result("SIGTERM saves the state of two GPUs", run.code == 1 and kept is not None, told_by(run))
    yield resumed(root, SIGNAL, "on two GPUs")


def main() -> int:
    """The exit code."""
    given = parser(__doc__, "/tmp/kohya-two-gpus", "throughput or interrupted").parse_args()
    began = time.monotonic()
    report = Report(given.out, "two-gpus.json")
    bench = bench_of(given)
    for group in (throughput, interrupted):
        if given.only in ("", group.__name__):
            run_group(group, bench, report)
    return 0 if report.close(machine(), time.monotonic() - began) else 1


if __name__ == "__main__":
    raise SystemExit(main())
