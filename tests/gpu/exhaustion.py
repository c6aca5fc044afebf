"""A machine that runs out of host memory, of disk, or of progress while the real trainer is at work."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from checks import left, prepared, resumed
from failures import failed, limited
from report import Result
from roots import Bench, Root, loader_of, sends, trainer_of

# More than the longest silent part of a start; less than anybody wants to pay a GPU for.
STALL_SECONDS = 90
# Enough for imports and CUDA with the stacks of all their threads; the base model in half precision beside its U-Net in
# fp32 takes 17.
HOST_MEMORY_GB = 12
# Three states of a quarter of a gigabyte each, and models.
VOLUME = "2g"
SLACK = 1 << 24


def host_memory(bench: Bench) -> Iterator[Result]:
    """Memory that is refused, and the two ways in which the kernel takes it back."""
    yield _memory_refused(bench)
    yield _killed_by_the_kernel(bench, "the trainer", trainer_of)
    yield _killed_by_the_kernel(bench, "a process that loads pictures", loader_of)


def _memory_refused(bench: Bench) -> Result:
    """Read into the host's memory, as where the GPU has no room for it besides."""
    root = prepared(bench, "refused-memory", {"lowram": False}, chosen_by_user=["lowram"])
    run = Root(bench, root.name, limited(HOST_MEMORY_LIMIT_GB=str(HOST_MEMORY_GB))).run()
    return failed(
        "host memory that is refused is told as such", run, "out-of-host-memory", "The machine ran out of"
    )


def _killed_by_the_kernel(bench: Bench, whom: str, process: Callable[[int], int]) -> Result:
    root = prepared(bench, f"killed-{process.__name__}")
    run = root.run(r"^progress step=3 ", sends(signal.SIGKILL, process))
    return failed(
        f"{whom} that the kernel kills for its memory is told as such",
        run,
        "out-of-host-memory",
        f"{whom[0].upper()}{whom[1:]} was killed, most likely",
    )


def full_disk(bench: Bench) -> Iterator[Result]:
    """The training volume fills up between two states, before the next one's weights or amid them. Needs root."""
    yield from _filled(bench, "full", "no room for a state", lambda state: 0)
    yield from _filled(
        bench,
        "fuller",
        "room for a part of a state",
        lambda state: (state / "model.safetensors").stat().st_size,
    )


def _filled(bench: Bench, name: str, what: str, room: Callable[[Path], int]) -> Iterator[Result]:
    with volume_of_its_own(bench.work / name):
        root = prepared(bench, name)
        filler = root.path / "filler"

        def fill(entry_point: int) -> None:
            state = root.path / "checkpoints" / "slot-a" / "state"
            # It would reach its next state meanwhile.
            os.kill(trainer_of(entry_point), signal.SIGSTOP)
            fill_up(filler, room(state))
            os.kill(trainer_of(entry_point), signal.SIGCONT)

        run = root.run(r"^checkpoint step=10", fill)
        yield failed(f"a full disk is told as such ({what})", run, "disk-full", "A disk is full: ")
        filler.unlink(missing_ok=True)
        yield resumed(root, 10, f"once there is room again ({what})")


def fill_up(filler: Path, room: int) -> None:
    """To the brim, then back by `room` bytes and a little: not all that is told as free can be had."""
    size = shutil.disk_usage(filler.parent).free
    with filler.open("wb") as file:
        while size > 0:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
                break
            except OSError:
                size -= SLACK
        file.truncate(max(0, size - SLACK - room))


@contextmanager
def volume_of_its_own(folder: Path) -> Iterator[None]:
    """SageMaker's volume has a size, too. That of a call that was cut may still be there."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={VOLUME}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def no_progress(bench: Bench) -> Iterator[Result]:
    """A trainer that the kernel no longer runs: it neither ends nor writes, and heeds no SIGTERM."""
    root = prepared(bench, "stalled")
    patience = {**root.variables, "STALL_SECONDS": str(STALL_SECONDS)}
    run = Root(bench, root.name, patience).run(r"^progress step=15 ", sends(signal.SIGSTOP, trainer_of))
    result = failed(
        "a trainer that makes no progress is stopped", run, "stalled", "The trainer wrote nothing for"
    )
    # Those that were on their way when it was stopped.
    last = int(max((entry["step"] for entry in run.progress()), default=0))
    silent = run.seconds - (run.first(rf"^progress step={last} ") or 0.0)
    told = "silent for" in run.failure and f"after step {last} " in run.failure
    passed = result.passed and told and silent < STALL_SECONDS + 15 and not left(root)
    yield Result(
        result.name, passed, f"{result.detail}; stopped {silent:.0f} s after its last line", run.seconds
    )
    yield resumed(root, 10, "after it made no progress")
