"""The GPUs, as their driver's nvidia-smi tells of them; there are none where there is no driver, or it is stuck."""

import subprocess

SECONDS_TO_ANSWER = 30.0


def visible_gpus() -> tuple[str, ...]:
    """One line of `nvidia-smi -L` a GPU."""
    return tuple(line for line in _lines("-L") if line.startswith("GPU "))


def least_memory_gib() -> float | None:
    """Of the smallest GPU."""
    told = _lines("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    try:
        return min(int(number) for number in told) / 1024
    except ValueError:  # none, or one that does not tell
        return None


def gpu_state() -> str:
    """Utilisation and memory of each GPU, or nothing."""
    lines = _lines("--query-gpu=utilization.gpu,memory.used,memory.total", "--format=csv,noheader")
    return "; ".join(f"GPU {index}: {line}" for index, line in enumerate(lines))


def _lines(*arguments: str) -> list[str]:
    try:
        told = subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in told.stdout.splitlines() if line.strip()]
