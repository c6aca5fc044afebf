"""What is read of the driver's answers."""

from pathlib import Path

import pytest

from kohya_trainer import nvidia_smi


def test_utilisation_and_memory_of_each_gpu_are_what_the_driver_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real output of nvidia-smi on a machine with two GPUs; without one nothing is said."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_smi.gpu_state() == ""

    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --query-gpu=utilization.gpu,memory.used,memory.total ] || exit 2\n'
        "echo '0 %, 41230 MiB, 81559 MiB'\necho '97 %, 80112 MiB, 81559 MiB'\n"
    )
    program.chmod(0o755)

    assert nvidia_smi.gpu_state() == ("GPU 0: 0 %, 41230 MiB, 81559 MiB; GPU 1: 97 %, 80112 MiB, 81559 MiB")
