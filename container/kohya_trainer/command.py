"""How Kohya is called: the argument vector and the variables, by the machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kohya_trainer.environment import Machine
from kohya_trainer.errors import UnsupportedKohyaVersionError

TRAINER = "sdxl_train_network.py"
# Stands between launcher and trainer; a file, because the trainer must not see this package on its path.
TRAINER_PROCESS = Path(__file__).with_name("trainer_process.py")
RENDEZVOUS_PORT = 29500
MOST_THREADS_PER_PROCESS = 8


def entry_point(kohya_home: Path) -> Path:
    """Since v23.0.0 the trainer lies in the submodule sd-scripts, before that at the root."""
    for script in (kohya_home / "sd-scripts" / TRAINER, kohya_home / TRAINER):
        if script.is_file():
            return script
    raise UnsupportedKohyaVersionError(
        f"There is no {TRAINER} below KOHYA_HOME.",
        "Build the image again with git clone --recurse-submodules.",
    )


def launch_arguments(
    script: Path, config_file: Path, options: Mapping[str, Any], machine: Machine
) -> list[str]:
    """Plain Python without a GPU or with one; with several, accelerate with one process a GPU of every host.

    accelerate sets nothing for one process that the trainer does not set itself, and takes seconds to import torch.
    """
    trainer = [str(TRAINER_PROCESS), str(script), "--config_file", str(config_file)]
    if machine.processes == 1:
        return [machine.python, *trainer]
    threads = max(1, min(MOST_THREADS_PER_PROCESS, machine.cpus // max(1, len(machine.gpus))))
    settings = {
        "num_processes": machine.processes,
        "num_machines": len(machine.hosts),
        "mixed_precision": options.get("mixed_precision", "no"),
        "num_cpu_threads_per_process": threads,
        "dynamo_backend": "no",
    }
    if len(machine.hosts) > 1:
        settings |= {
            "machine_rank": machine.rank,
            "main_process_ip": machine.hosts[0],
            "main_process_port": RENDEZVOUS_PORT,
        }
    return [
        machine.python,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        *(text for name, value in settings.items() for text in (f"--{name}", str(value))),
        *trainer,
    ]


def network_variables(machine: Machine) -> dict[str, str]:
    """Hosts reach each other by the interface that SageMaker names; NCCL and gloo would guess one."""
    if len(machine.hosts) == 1 or not machine.network_interface:
        return {}
    return dict.fromkeys(("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"), machine.network_interface)
