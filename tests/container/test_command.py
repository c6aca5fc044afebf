"""From the machine to argv: pure, so nothing is launched here."""

from dataclasses import replace
from pathlib import Path

import pytest

from kohya_trainer.command import TRAINER, TRAINER_PROCESS, entry_point, launch_arguments, network_variables
from kohya_trainer.environment import Machine
from kohya_trainer.errors import UnsupportedKohyaVersionError

OPTIONS = {"mixed_precision": "bf16"}


def machine(gpus: int = 0, hosts: tuple[str, ...] = ("algo-1",), cpus: int = 16) -> Machine:
    return Machine(gpus=("GPU",) * gpus, cpus=cpus, hosts=hosts, current_host=hosts[-1], python="python3")


def test_without_a_gpu_the_script_runs_in_plain_python() -> None:
    arguments = launch_arguments(Path("/k/s.py"), Path("/c.toml"), OPTIONS, machine())

    assert arguments == ["python3", str(TRAINER_PROCESS), "/k/s.py", "--config_file", "/c.toml"]


def test_one_gpu_needs_no_launcher() -> None:
    arguments = launch_arguments(Path("/k/s.py"), Path("/c.toml"), OPTIONS, machine(gpus=1))

    assert arguments == ["python3", str(TRAINER_PROCESS), "/k/s.py", "--config_file", "/c.toml"]
    assert TRAINER_PROCESS.is_file()


def test_gpus_of_one_host_are_launched_by_accelerate_with_precision_and_threads_set() -> None:
    arguments = launch_arguments(Path("/k/s.py"), Path("/c.toml"), OPTIONS, machine(gpus=2))

    assert arguments[:4] == ["python3", "-m", "accelerate.commands.launch", "--multi_gpu"]
    pairs = dict(zip(arguments[4:-4:2], arguments[5:-4:2], strict=True))
    assert pairs == {
        "--num_processes": "2",
        "--num_machines": "1",
        "--mixed_precision": "bf16",
        "--num_cpu_threads_per_process": "8",
        "--dynamo_backend": "no",
    }
    assert arguments[-4:] == [str(TRAINER_PROCESS), "/k/s.py", "--config_file", "/c.toml"]


def test_several_hosts_meet_at_the_first_one() -> None:
    hosts = ("algo-1", "algo-2")
    arguments = launch_arguments(Path("/k/s.py"), Path("/c.toml"), {}, machine(gpus=4, hosts=hosts))

    text = " ".join(arguments)
    assert "--multi_gpu --num_processes 8 --num_machines 2 --mixed_precision no" in text
    assert "--machine_rank 1 --main_process_ip algo-1 --main_process_port 29500" in text
    assert "--num_cpu_threads_per_process 4" in text


def test_several_hosts_speak_over_the_interface_that_sagemaker_names() -> None:
    several = replace(machine(hosts=("algo-1", "algo-2")), network_interface="eth1")

    assert network_variables(several) == {"NCCL_SOCKET_IFNAME": "eth1", "GLOO_SOCKET_IFNAME": "eth1"}
    assert network_variables(replace(several, hosts=("algo-1",))) == {}


@pytest.mark.parametrize("place", [f"sd-scripts/{TRAINER}", TRAINER])
def test_the_entry_point_is_found_in_both_layouts(tmp_path: Path, place: str) -> None:
    script = tmp_path / place
    script.parent.mkdir(exist_ok=True)
    script.touch()

    assert entry_point(tmp_path) == script


def test_a_clone_without_its_submodule_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "sd-scripts").mkdir()

    with pytest.raises(UnsupportedKohyaVersionError, match="--recurse-submodules"):
        entry_point(tmp_path)
