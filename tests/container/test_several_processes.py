"""Runs of two processes through the entry point, as on two GPUs: of one host, and of two that SageMaker names."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from .conftest import REHEARSAL, TrainingRoot, slow_after

LAUNCHER = Path(__file__).with_name("launcher")
# What each host says of its GPUs.
NVIDIA_SMI = """#!/bin/sh
[ "$1" = -L ] || exit 0
for number in $(seq $GPUS); do echo "GPU $number: a GPU"; done
"""
DYING = """
import os, time
if os.environ["RANK"] == "1":
    raise RuntimeError("CUDA out of memory.")
time.sleep(60)
"""
OPTIONS: dict[str, Any] = {"max_train_steps": 34, "lr_scheduler": "cosine", "learning_rate": 1e-4}


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """How to start the entry point where there are GPUs, as it believes: the stand-in is the trainer all the same."""
    folder = tmp_path_factory.mktemp("machine")
    home = folder / "kohya"
    home.mkdir()
    # Without REHEARSAL.md it is launched as the real one is.
    (home / "sd-scripts").symlink_to(REHEARSAL / "sd-scripts")
    (folder / "nvidia-smi").write_text(NVIDIA_SMI, encoding="utf-8")
    (folder / "nvidia-smi").chmod(0o755)

    def of(gpus: int) -> dict[str, Any]:
        path = [str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]
        variables = {"PATH": os.pathsep.join(path), "PYTHONPATH": str(LAUNCHER), "GPUS": str(gpus)}
        return {"kohya_home": home, "CHECKPOINT_EVERY_N_STEPS": "10", **variables}

    return of


def _prepared(root: TrainingRoot, **options: Any) -> TrainingRoot:
    """Photographs of one size, four times ten of them in batches of two: 20 batches an epoch, 10 of each process."""
    root.add_images()
    root.write_plan(**{**OPTIONS, **options})
    plan = root.path / "input" / "data" / "config" / "plan.json"
    plan.write_text(json.dumps({**json.loads(plan.read_bytes()), "base_model": {"kind": "channel"}}))
    channel = root.path / "input" / "data" / "model"
    channel.mkdir(exist_ok=True)
    (channel / "sdxl.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return root


def _name_hosts(root: TrainingRoot, current: str, hosts: list[str]) -> None:
    resources = {"current_host": current, "hosts": hosts, "network_interface_name": "lo"}
    (root.path / "input" / "config" / "resourceconfig.json").write_text(json.dumps(resources))


def _steps(output: str) -> list[int]:
    return [int(step) for step in re.findall(r"^progress step=(\d+) ", output, re.MULTILINE)]


def _weights(root: TrainingRoot) -> dict[str, Any]:
    with safe_open(root.path / "model" / "cats.safetensors", framework="numpy") as model:
        return {name: model.get_tensor(name) for name in model.keys()}  # noqa: SIM118, it is no dict


def _same(one: TrainingRoot, other: TrainingRoot) -> bool:
    ours, theirs = _weights(one), _weights(other)
    return sorted(ours) == sorted(theirs) and all((ours[name] == theirs[name]).all() for name in ours)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, machine: Callable[..., dict[str, Any]]) -> Any:
    """(root, how it ended) of an uninterrupted run of two processes."""
    root = _prepared(TrainingRoot(tmp_path_factory.mktemp("two") / "ml"))
    return root, root.run(**machine(2))


def test_two_processes_train_one_model_and_one_of_them_tells_of_it(whole: Any) -> None:
    root, run = whole

    assert run.code == 0, run.output
    assert re.search(
        r"^launching .*accelerate\.commands\.launch --multi_gpu --num_processes 2 ", run.output, re.M
    )
    assert _steps(run.output) == list(range(1, 35))
    # Four images a step, and an epoch of half as many batches.
    assert len(re.findall(r"num batches per epoch .*: 10$", run.output, re.MULTILINE)) == 1
    assert len(re.findall(r"^checkpoint step=", run.output, re.MULTILINE)) == 3
    assert len(list((root.path / "model" / "samples").glob("*.png"))) == 1
    assert root.provenance()["steps"] == 34


def test_a_steps_images_are_those_of_all_processes(whole: Any) -> None:
    _, run = whole

    told = re.findall(r" images_per_second=(\S+) .*seconds_per_step=(\S+)", run.output)
    assert {round(float(speed) * float(seconds)) for speed, seconds in told} == {4}


@pytest.mark.parametrize(
    ("step", "number", "least"),
    [
        (13, signal.SIGTERM, 13),
        (27, signal.SIGKILL, 20),
    ],
)
def test_an_interrupted_run_of_two_processes_goes_on_as_if_nothing_had_happened(
    whole: Any,
    new_root: Callable[[str], TrainingRoot],
    machine: Callable[..., dict[str, Any]],
    step: int,
    number: signal.Signals,
    least: int,
) -> None:
    uninterrupted, _ = whole
    root = _prepared(new_root("ml"))

    root.run_until(f"^progress step={step} ", number, **machine(2), **slow_after(step))
    resumed = root.run(**machine(2))

    assert resumed.code == 0, resumed.output
    done = int(re.findall(r"^resuming after step (\d+) of 34$", resumed.output, re.MULTILINE)[0])
    assert done >= least
    assert _steps(resumed.output) == list(range(done + 1, 35))
    assert root.losses() == uninterrupted.losses()
    assert _same(root, uninterrupted)


def test_a_state_of_another_number_of_gpus_is_not_gone_on_from(
    new_root: Callable[[str], TrainingRoot], machine: Callable[..., dict[str, Any]]
) -> None:
    root = _prepared(new_root("ml"), max_train_steps=12)
    root.run_until(r"^checkpoint step=10 ", signal.SIGKILL, **machine(2), **slow_after(10))

    run = root.run(**machine(1))

    assert run.code == 0, run.output
    assert (
        "note: the checkpoints hold a state of other options, another dataset or number of GPUs" in run.output
    )
    assert _steps(run.output) == list(range(1, 13))


def test_a_process_that_dies_fails_the_run(
    new_root: Callable[[str], TrainingRoot], machine: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    root = _prepared(new_root("ml"))
    home = tmp_path / "kohya" / "sd-scripts"
    home.mkdir(parents=True)
    for package in ("library", "rehearsal_trainer"):
        (home / package).symlink_to(REHEARSAL / "sd-scripts" / package)
    (home / "sdxl_train_network.py").write_text(DYING, encoding="utf-8")

    run = root.run(**{**machine(2), "kohya_home": home.parent})

    assert run.code == 1
    assert run.failure.startswith("The GPU ran out of memory.")


@pytest.fixture
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[TrainingRoot, TrainingRoot]:
    """Two hosts with a GPU each. The first is an address of this machine that no other test listens at."""
    names = [f"127.{os.getpid() >> 8 & 127}.{os.getpid() & 255}.2", "algo-2"]
    roots = TrainingRoot(tmp_path / "algo-1"), TrainingRoot(tmp_path / "algo-2")
    for root, name in zip(roots, names, strict=True):
        _prepared(root, max_train_steps=request.param)
        _name_hosts(root, name, names)
    return roots


@pytest.mark.parametrize("hosts", [34], indirect=True)
def test_two_hosts_train_one_model_and_the_first_delivers_it(
    hosts: tuple[TrainingRoot, TrainingRoot], whole: Any, machine: Callable[..., dict[str, Any]]
) -> None:
    processes = [root.start(**machine(1)) for root in hosts]
    first, second = (root.finish(process) for root, process in zip(hosts, processes, strict=True))

    assert (first.code, second.code) == (0, 0), first.output + second.output
    assert "--machine_rank 0 --main_process_ip 127." in first.output
    assert "--machine_rank 1 --main_process_ip 127." in second.output
    # The very run of two processes on one host.
    assert _same(hosts[0], whole[0])
    assert (_steps(first.output), _steps(second.output)) == (list(range(1, 35)), [])
    # SageMaker copies the folders of all hosts to one place: the second one's must be empty.
    assert not (hosts[1].path / "model").exists()
    assert [path for path in (hosts[1].path / "checkpoints").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("hosts", [2000], indirect=True)
def test_two_hosts_that_are_interrupted_keep_the_step_that_they_were_at(
    hosts: tuple[TrainingRoot, TrainingRoot], machine: Callable[..., dict[str, Any]]
) -> None:
    processes = [root.start(**machine(1), REHEARSAL_STEP_SECONDS="0.05") for root in hosts]
    assert processes[0].stdout is not None
    for text in processes[0].stdout:
        if text.startswith("progress step=13 "):
            # A second host that ended at once would take the first one's step with it.
            processes[1].send_signal(signal.SIGTERM)
            time.sleep(1.0)
            processes[0].send_signal(signal.SIGTERM)
            break
    first, second = (root.finish(process) for root, process in zip(hosts, processes, strict=True))

    assert (first.code, second.code) == (1, 1)
    kept = re.match(
        r"The training was interrupted after step (\d+)\. The state after step (\d+) is kept", first.failure
    )
    assert kept, first.failure
    assert int(kept[2]) >= 13
    assert second.failure.startswith("The training was interrupted")
