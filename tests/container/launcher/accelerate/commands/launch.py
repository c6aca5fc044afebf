"""accelerate's launcher without torch: the options that the container gives it, processes numbered as torchrun's are.

As torchrun does, it ends all processes of this host when one of them fails, and then fails itself.
"""

import argparse
import os
import socket
import subprocess
import sys
import time

SECONDS_BETWEEN_LOOKS = 0.05


def parsed() -> argparse.Namespace:
    """The types and choices of accelerate 1.6; what it does not know it refuses."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--multi_gpu", action="store_true")
    parser.add_argument("--num_processes", type=int, required=True)
    parser.add_argument("--num_machines", type=int, default=1)
    parser.add_argument("--machine_rank", type=int, default=0)
    parser.add_argument("--main_process_ip")
    parser.add_argument("--main_process_port", type=int)
    parser.add_argument("--num_cpu_threads_per_process", type=int)
    parser.add_argument("--mixed_precision", choices=("no", "fp16", "bf16", "fp8"))
    parser.add_argument("--dynamo_backend", choices=("no", "eager", "inductor"))
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser.parse_args()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    given = parsed()
    here = given.num_processes // given.num_machines
    shared = {
        "WORLD_SIZE": str(given.num_processes),
        "MASTER_ADDR": given.main_process_ip or "127.0.0.1",
        "MASTER_PORT": str(given.main_process_port or free_port()),
        "OMP_NUM_THREADS": str(given.num_cpu_threads_per_process),
        "ACCELERATE_MIXED_PRECISION": given.mixed_precision,
    }
    processes = []
    for local in range(here):
        numbers = {"LOCAL_RANK": str(local), "RANK": str(given.machine_rank * here + local)}
        command = [sys.executable, given.script, *given.arguments]
        processes.append(subprocess.Popen(command, env={**os.environ, **shared, **numbers}))
    while any(process.poll() is None for process in processes):
        if any(process.poll() for process in processes):
            for process in processes:
                process.kill()
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return 1 if any(process.returncode for process in processes) else 0


if __name__ == "__main__":
    sys.exit(main())
