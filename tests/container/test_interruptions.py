"""Runs that a signal ends, and the launches that go on from what they left."""

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from .conftest import TrainingRoot, slow_after


def test_sigterm_ends_the_trainer_and_tells_how_to_go_on(root: Any) -> None:
    root.write_plan(max_train_steps=2000)

    run = root.run_until(r"^progress step=3 ", signal.SIGTERM)

    assert run.code == 1
    told = re.match(
        r"The training was interrupted after step (\d+)\. The state after step (\d+) is kept\.\nRemedy: Start it",
        run.failure,
    )
    assert told
    assert 3 <= int(told[2]) <= int(told[1])
    assert _processes_of(root) == []


def test_sigterm_after_the_last_step_does_not_throw_the_model_away(root: Any) -> None:
    run = root.run_until(r"^progress step=12 ", signal.SIGTERM, REHEARSAL_STEP_SECONDS="0.5")

    assert run.code == 0, run.output
    assert run.failure == ""
    assert root.provenance()["steps"] == 12


def test_sigterm_before_the_first_step_ends_the_run_at_once(
    root: Any, fake_kohya: Callable[[str], Path]
) -> None:
    home = fake_kohya("import time; print('begun', flush=True); time.sleep(60)")

    began = time.monotonic()
    run = root.run_until(r"^begun$", signal.SIGTERM, kohya_home=home)

    assert time.monotonic() - began < 20
    assert run.failure.startswith("The training was interrupted after step 0.\nRemedy: ")


def _processes_of(root: Any) -> list[str]:
    """Command lines that name this root, of whatever is running."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if str(root.path) in line]


def test_killing_the_entry_point_outright_leaves_no_trainer_behind(
    root: Any, fake_kohya: Callable[[str], Path]
) -> None:
    # Silent, so that it cannot learn of it from a broken pipe.
    home = fake_kohya("import os, time; print('begun', flush=True); os.close(1); os.close(2); time.sleep(60)")

    root.run_until(r"^begun$", signal.SIGKILL, kohya_home=home)

    deadline = time.monotonic() + 5
    while _processes_of(root) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _processes_of(root) == []


# As accelerate does it: the trainer is the launcher's child. Silent and slow, so that only the kernel can end it.
LAUNCHER = """
import subprocess, sys
program = [name for name in sys.argv[1:] if name.endswith(".py")][0]
sys.exit(subprocess.call([sys.executable, *sys.argv[sys.argv.index(program):]]))
"""
SLEEPER = """
import os, sys, time
import options_of_the_trainer
assert sys.argv[1] == "--config_file" and __name__ == "__main__", sys.argv
print("begun", flush=True)
os.close(1)
os.close(2)
time.sleep(60)
"""


def test_killing_the_entry_point_outright_leaves_no_trainer_behind_its_launcher(
    root: Any, fake_kohya: Callable[[str], Path], tmp_path: Path
) -> None:
    home = fake_kohya(SLEEPER)
    (home / "REHEARSAL.md").unlink()
    (home / "sd-scripts" / "options_of_the_trainer.py").touch()
    (root.path / "input" / "data" / "model").mkdir()
    (root.path / "input" / "data" / "model" / "sdxl.safetensors").write_bytes(
        (2).to_bytes(8, "little") + b"{}"
    )
    plan = root.path / "input" / "data" / "config" / "plan.json"
    plan.write_text(json.dumps({**json.loads(plan.read_bytes()), "base_model": {"kind": "channel"}}))
    commands = tmp_path / "packages" / "accelerate" / "commands"
    commands.mkdir(parents=True)
    (commands / "launch.py").write_text(LAUNCHER, encoding="utf-8")
    (tmp_path / "nvidia-smi").write_text(
        "#!/bin/sh\necho 'GPU 0: one'\necho 'GPU 1: two'\n", encoding="utf-8"
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    run = root.run_until(
        r"^begun$", signal.SIGKILL, kohya_home=home, PATH=path, PYTHONPATH=str(tmp_path / "packages")
    )

    assert "accelerate.commands.launch" in run.output
    assert "\nbegun\n" in run.output
    deadline = time.monotonic() + 5
    while _processes_of(root) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _processes_of(root) == []


EVERY_TEN = {"CHECKPOINT_EVERY_N_STEPS": "10"}


def _model(root: Any) -> dict[str, Any]:
    with safe_open(root.path / "model" / "cats.safetensors", framework="numpy") as model:
        return {name: model.get_tensor(name) for name in model.keys()}  # noqa: SIM118, it is no dict


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return sorted(one) == sorted(other) and all((one[name] == other[name]).all() for name in one)


@pytest.fixture(scope="module", params=[34])
def uninterrupted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Any]:
    """34 steps are no whole number of epochs, which have 20 batches."""
    root = TrainingRoot(tmp_path_factory.mktemp("whole") / "ml")
    root.add_images()
    root.write_plan(max_train_steps=request.param, lr_scheduler="cosine", learning_rate=1e-4)
    assert root.run().code == 0
    return request.param, root


# (what the log says when the run is interrupted, of which step, how, the least step to go on from)
INTERRUPTIONS = [
    (r"^progress step=4 ", 4, signal.SIGTERM, 4),
    (r"^checkpoint step=20 ", 20, signal.SIGTERM, 20),  # between two epochs
    (r"^progress step=25 ", 25, signal.SIGTERM, 25),
    (r"^progress step=27 ", 27, signal.SIGKILL, 20),
    (r"save train state to .*step-00000020", 20, signal.SIGKILL, 10),  # while that state is written
]


@pytest.mark.parametrize(("line", "step", "number", "least"), INTERRUPTIONS)
def test_an_interrupted_run_continues_as_if_nothing_had_happened(
    uninterrupted: tuple[int, Any], root: Any, line: str, step: int, number: signal.Signals, least: int
) -> None:
    steps, whole = uninterrupted
    root.write_plan(max_train_steps=steps, lr_scheduler="cosine", learning_rate=1e-4)

    interrupted = root.run_until(line, number, **EVERY_TEN, **slow_after(step))
    assert interrupted.code in (1, -signal.SIGKILL)
    resumed = root.run(**EVERY_TEN)

    assert resumed.code == 0, resumed.output
    done = int(re.findall(rf"^resuming after step (\d+) of {steps}$", resumed.output, re.MULTILINE)[0])
    assert done >= least
    told = [int(step) for step in re.findall(r"^progress step=(\d+) ", resumed.output, re.MULTILINE)]
    assert told == list(range(done + 1, steps + 1))
    assert root.losses() == whole.losses()
    assert root.provenance()["steps"] == steps
    assert root.provenance()["resumed_after"] == done
    assert _same(_model(root), _model(whole))


def test_a_restart_finds_the_latents_of_the_launch_before(root: Any) -> None:
    root.write_plan(max_train_steps=40, cache_latents_to_disk=True)
    interrupted = root.run_until(r"^checkpoint step=10 ", signal.SIGKILL, **EVERY_TEN, **slow_after(10))
    assert "have their latents" not in interrupted.output
    kept = sorted((root.path / "checkpoints" / "latents").rglob("*.npz"))
    images = [path for path in root.dataset.rglob("*") if path.suffix in (".png", ".jpg")]
    assert len(kept) == len(images)
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    before = kept[1].stat().st_mtime_ns

    run = root.run(**EVERY_TEN)

    assert run.code == 0, run.output
    assert f"{len(images) - 1} images have their latents from an earlier launch" in run.output
    assert kept[0].stat().st_size == kept[1].stat().st_size
    assert kept[1].stat().st_mtime_ns == before


def test_samples_and_models_of_before_an_interruption_are_delivered_too(root: Any) -> None:
    root.write_plan(max_train_steps=34, sample_every_n_steps=8, save_every_n_steps=8)
    root.run_until(r"^checkpoint step=20 ", signal.SIGKILL, **EVERY_TEN, **slow_after(20))
    # As a kill between two states leaves it: a picture that is drawn again, and half a file.
    kept = root.path / "checkpoints" / "results"
    drawn = next((kept / "sample").glob("*_000008_*.png"))
    shutil.copy(drawn, drawn.with_name(drawn.name.replace("_000008_", "_000024_")))
    (kept / "cats-step00000008.safetensors.partial").write_bytes(b"half")

    run = root.run(**EVERY_TEN)

    assert run.code == 0, run.output
    assert "resuming after step 20 of 34" in run.output
    pictures = sorted(path.name.split("_")[1] for path in (root.path / "model" / "samples").iterdir())
    assert pictures == ["000008", "000016", "000024", "000032", "000034"]
    models = {path.name: _steps_of(path) for path in (root.path / "model").glob("*.safetensors")}
    between = {f"cats-step{step:08d}.safetensors" for step in range(8, 34, 8)}
    assert set(models) == {"cats.safetensors", *between}
    assert models == {name: str(int(name[-17:-12])) if "step" in name else "34" for name in models}


def _steps_of(model: Path) -> str:
    with safe_open(model, framework="numpy") as opened:
        return str(opened.metadata()["ss_steps"])


def test_a_run_killed_while_a_state_is_written_goes_on_from_the_one_before(root: Any) -> None:
    root.write_plan(max_train_steps=40)
    # The state's files are there, its marker is not.
    root.run_until(r"^checkpoint step=20 ", signal.SIGKILL, **EVERY_TEN, **slow_after(20))
    newest = max(
        (root.path / "checkpoints").glob("slot-*/complete.json"),
        key=lambda path: json.loads(path.read_bytes())["step"],
    )
    newest.unlink()

    run = root.run()

    assert run.code == 0, run.output
    assert "resuming after step 10 of 40" in run.output
    assert [step for step, _ in root.losses()] == list(range(1, 41))


def test_with_accumulation_states_are_saved_at_the_end_of_an_epoch(root: Any) -> None:
    root.write_plan(max_train_steps=40, gradient_accumulation_steps=4)
    every = {"CHECKPOINT_EVERY_N_STEPS": "1"}
    interrupted = root.run_until(r"^progress step=12 ", signal.SIGTERM, **every, **slow_after(12))
    assert re.findall(r"^checkpoint step=(\d+) ", interrupted.output, re.MULTILINE) == ["5", "10"]

    run = root.run()

    assert run.code == 0, run.output
    assert "resuming after step 10 of 40" in run.output
    assert [step for step, _ in root.losses()] == list(range(1, 41))


def test_a_state_of_other_options_is_not_continued(root: Any) -> None:
    root.write_plan(max_train_steps=30)
    root.run_until(r"^checkpoint step=10 ", signal.SIGTERM, **EVERY_TEN, **slow_after(10))
    root.write_plan(max_train_steps=30, learning_rate=1e-4)

    run = root.run()

    assert run.code == 0, run.output
    assert "resuming" not in run.output
