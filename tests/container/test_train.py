"""The entry point `train`, as a process, on a root like SageMaker's, with the CPU stand-in for Kohya."""

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from kohya_trainer.toml_text import to_toml
from kohya_trainer.trainer_events import encode

from .conftest import OPTIONS, REHEARSAL, TrainingRoot

MODEL_FILES = {"cats.safetensors", "loss.jsonl"}


def test_a_planned_run_ends_with_a_proved_model(root: Any) -> None:
    run = root.run(SOURCE_COMMIT="c0ffee")

    assert run.code == 0, run.output
    assert run.failure == ""
    with safe_open(root.path / "model" / "cats.safetensors", framework="numpy") as model:
        assert model.metadata()["rehearsal"] == "true"
        assert all(name.startswith("lora_unet_") for name in model.keys())  # noqa: SIM118, it is no dict
    provenance = root.provenance()
    assert provenance["rehearsal"] is True
    assert provenance["run_id"] == "cats-0123456789ab"
    assert provenance["image"] == "registry/kohya@sha256:abc"
    assert provenance["source_commit"] == "c0ffee"
    assert provenance["steps"] == 12
    assert provenance["options"]["network_dim"] == 8
    assert provenance["licence"] == "CC0-1.0"
    names = {entry["name"] for entry in provenance["files"]}
    assert names >= MODEL_FILES
    assert len([name for name in names if name.startswith("samples/")]) == 1
    for entry in provenance["files"]:
        content = (root.path / "model" / entry["name"]).read_bytes()
        assert (len(content), sha256(content).hexdigest()) == (entry["size"], entry["sha256"])


def test_progress_is_told_in_lines_that_the_metric_definitions_parse(root: Any) -> None:
    run = root.run()

    lines = [line for line in run.output.splitlines() if line.startswith("progress ")]
    assert [int(re.findall(r"progress step=([0-9]+)", line)[0]) for line in lines] == list(range(1, 13))
    assert {re.findall(r" total=([0-9]+)", line)[0] for line in lines} == {"12"}
    assert all(float(re.findall(r" loss=([0-9.eE+-]+|nan|inf)", line)[0]) > 0 for line in lines)
    assert re.findall(r" eta_seconds=([0-9.]+)", lines[-1]) == ["0"]
    assert all(" lr=0.001 " in line for line in lines)


def test_the_older_layout_needs_nothing_but_a_dataset_with_its_toml(root: Any) -> None:
    for path in (root.path / "input" / "data" / "config").iterdir():
        if path.name == "config.toml":
            text = path.read_text(encoding="utf-8").replace("seed = 11\n", "")
            older = 'sdxl = true\nmax_token_length = 75\nhuggingface_repo_id = "somebody/elses"\n'
            (root.dataset / "kohya-sdxl-config.toml").write_text(f"[all]\n{older}{text}", encoding="utf-8")
        path.unlink()
    path.parent.rmdir()

    run = root.run()

    assert run.code == 0, run.output
    assert "sdxl is not an option of v25.2.2 and has no effect" in run.output
    assert "huggingface_repo_id reaches further than training" in run.output
    assert (root.path / "model" / "model.safetensors").is_file()
    # The trainer's own would be another one in each launch.
    assert "note: seed is not set, 1234 is taken" in run.output
    assert root.provenance()["seed"] == 1234


@pytest.mark.parametrize(
    ("named", "drawn", "told"),
    [
        ("/somewhere/else/prompts.txt", 1, ""),
        ("missing.txt", 0, "note: sample_prompts: missing.txt is not in the dataset"),
        ("prompts.json", 0, "note: sample_prompts: prompts.json is no .txt"),
    ],
)
def test_the_older_layouts_prompts_are_drawn_at_the_end_or_the_log_says_why_not(
    new_root: Any, named: str, drawn: int, told: str
) -> None:
    older = new_root("older")
    older.add_images()
    (older.dataset / "prompts.txt").write_text("# of the cat\n\nsks cat, asleep --w 64 --h 64\n")
    (older.dataset / "prompts.json").write_text("[]")
    options = {**OPTIONS, "sample_prompts": named, "max_train_steps": 3}
    (older.dataset / "kohya-sdxl-config.toml").write_text(to_toml(options), encoding="utf-8")

    run = older.run()

    assert run.code == 0, run.output
    assert told in run.output
    assert len(list((older.path / "model").glob("samples/*_000003_*.png"))) == drawn


def test_a_file_outside_the_inventory_is_not_trained_on(root: Any) -> None:
    (root.dataset / "10_sks cat" / "uploaded-later.png").write_bytes(b"no image at all")

    run = root.run()

    assert run.code == 0, run.output
    assert root.provenance()["dataset"]["images"] == 4


def test_a_file_that_changed_since_the_inspection_fails_the_run_with_its_name(root: Any) -> None:
    (root.dataset / "10_sks cat" / "2.txt").write_text("sks cat number X", encoding="utf-8")

    run = root.run()

    assert run.code == 1
    assert run.failure.startswith("10_sks cat/2.txt has changed since the dataset was inspected.\nRemedy: ")
    assert not (root.path / "model").exists()


def test_a_missing_file_fails_the_run_with_its_name(root: Any) -> None:
    (root.dataset / "10_sks cat" / "3.png").unlink()

    assert "10_sks cat/3.png is missing" in root.run().failure


def test_a_dataset_in_which_kohya_finds_nothing_fails_though_kohya_returns_zero(
    new_root: Callable[[str], Any], fake_kohya: Callable[[str], Path], root: Any
) -> None:
    home = fake_kohya("print('ERROR No data found. Please verify arguments')")

    run = root.run(home)

    assert run.code == 1
    assert run.failure.startswith("The trainer found no images.")


def test_an_older_dataset_without_numbered_folders_fails_before_the_trainer_starts(new_root: Any) -> None:
    flat = new_root("flat")
    flat.add_images(folder=".")
    (flat.dataset / "kohya-sdxl-config.toml").write_text("max_train_steps = 5\n", encoding="utf-8")

    run = flat.run()

    assert run.code == 1
    assert "class=no-data" in run.output
    assert "launching" not in run.output


def test_a_loss_that_is_not_a_number_stops_the_run_at_once(root: Any) -> None:
    root.write_plan(learning_rate=1e30, max_train_steps=5000)

    began = time.monotonic()
    run = root.run()

    assert run.code == 1
    assert time.monotonic() - began < 20
    assert "class=not-finite" in run.output
    assert re.match(
        r"The loss stopped being a number \((nan|inf)\) at step \d+, in the batch of \d\.png, \d\.png\.\n"
        r"Remedy: Lower learn",
        run.failure,
    )
    assert re.search(r"^progress step=\d+ total=5000 loss=(nan|inf)", run.output, re.MULTILINE)


def test_a_state_of_weights_that_a_gradient_broke_is_not_kept(root: Any) -> None:
    """The loss is finite still, and not a number at the next step."""
    root.write_plan(learning_rate=1e30, max_train_steps=5000)

    run = root.run(CHECKPOINT_EVERY_N_STEPS="1")

    assert "at step" in run.failure, run.output
    broken = int(re.findall(r"at step (\d+)", run.failure)[0])
    kept = [int(step) for step in re.findall(r"^checkpoint step=(\d+)", run.output, re.MULTILINE)]
    for slot in (root.path / "checkpoints").glob("slot-*"):
        with safe_open(slot / "state" / "model.safetensors", framework="numpy") as state:
            assert all(np.isfinite(state.get_tensor(name)).all() for name in state.keys())  # noqa: SIM118, it is no dict
    assert broken - 1 not in kept


def test_an_image_that_cannot_be_read_is_named(root: Any) -> None:
    (root.dataset / "10_sks cat" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    root.write_plan()

    run = root.run()

    assert run.code == 1
    assert re.match(r"An image cannot be read \(.*10_sks cat/1\.png\)\.\nRemedy: Replace", run.failure)


def test_an_option_that_kohya_would_ignore_silently_is_refused(root: Any) -> None:
    root.write_plan(learning_rat=1e-4)

    run = root.run()

    assert run.failure.startswith(
        "The configuration cannot be used: learning_rat is not an option of v25.2.2."
    )


def test_a_version_without_an_option_table_names_the_command_that_makes_it(root: Any) -> None:
    run = root.run(KOHYA_VERSION="v26.0.0")

    assert "There is no option table for Kohya v26.0.0" in run.failure
    assert "python -m kohya_trainer.make_option_table v26.0.0" in run.failure


def test_a_plan_for_another_version_of_kohya_is_refused(root: Any) -> None:
    run = root.run(KOHYA_VERSION="v22.6.2")

    assert run.code == 1
    assert run.failure.startswith("The run was planned for Kohya v25.2.2, but this image holds v22.6.2.")


def test_the_older_version_trains_with_its_scripts_at_the_root_and_begins_anew_after_an_interruption(
    root: Any, tmp_path: Path
) -> None:
    """v22.6.2: no submodule, no hooks; its bar is read, and its states are saved but never gone on from."""
    home = tmp_path / "kohya_ss"
    home.mkdir()
    (home / "REHEARSAL.md").touch()
    for name in ("KOHYA_SS_COMMIT", "TRAINER_COMMIT"):
        (home / name).write_text(f"{name.lower()} of v22.6.2\n")
    for path in (REHEARSAL / "sd-scripts").iterdir():
        (home / path.name).symlink_to(path)
    root.write_plan(max_train_steps=24, save_every_n_epochs=1)
    plan = root.path / "input" / "data" / "config" / "plan.json"
    plan.write_text(json.dumps({**json.loads(plan.read_bytes()), "kohya_version": "v22.6.2"}))
    version = {"kohya_home": home, "KOHYA_VERSION": "v22.6.2"}

    _run_until(root, r"^checkpoint step=10$", signal.SIGKILL, **version, REHEARSAL_STEP_SECONDS="0.05")
    run = root.run(**version)

    assert run.code == 0, run.output
    assert "Kohya v22.6.2 cannot continue with the right step count; starting again" in run.output
    assert [step for step, _ in root.losses()] == list(range(1, 25))
    # Not those that the trainer writes beside the states of its steps.
    models = sorted(path.name for path in (root.path / "model").glob("*.safetensors"))
    assert models == ["cats-000001.safetensors", "cats.safetensors"]
    told = root.provenance()
    assert told["kohya_version"] == "v22.6.2"
    assert told["kohya_ss_commit"] == "kohya_ss_commit of v22.6.2"
    assert told["trainer_commit"] == "trainer_commit of v22.6.2"


def test_a_gpu_instance_whose_gpu_cannot_be_seen_is_not_trained_on_by_the_cpu(
    root: Any, tmp_path: Path
) -> None:
    settings = root.path / "input" / "config" / "resourceconfig.json"
    settings.write_text(
        json.dumps({**json.loads(settings.read_text()), "current_instance_type": "ml.g5.8xlarge"})
    )
    home = tmp_path / "kohya_ss"
    (home / "sd-scripts").mkdir(parents=True)
    (home / "sd-scripts" / "sdxl_train_network.py").write_text("raise SystemExit('was started')\n")

    run = root.run(kohya_home=home)

    assert run.code == 1
    assert run.failure.startswith("ml.g5.8xlarge has a GPU, but nvidia-smi lists none inside the container.")
    assert "was started" not in run.output


def test_a_model_of_zeros_fails_the_run(root: Any) -> None:
    root.write_plan(learning_rate=0.0)

    run = root.run()

    assert run.code == 1
    assert "All up-weights of the model are zero" in run.failure
    assert not (root.path / "model").exists()


@pytest.fixture
def ending_kohya(root: Any, fake_kohya: Callable[[str], Path]) -> Callable[..., Path]:
    """A KOHYA_HOME whose trainer tells of one step of 12, writes the model of a good run, then does as it is given."""
    assert root.run().code == 0
    kept = (root.path / "model" / "cats.safetensors").rename(root.path / "good.safetensors")
    shutil.rmtree(root.path / "checkpoints")
    shutil.rmtree(root.path / "model")

    def make(last: int, then: str = "") -> Path:
        facts = {
            "learning_rate": 0.1,
            "seconds": 0.1,
            "images": 2,
            "files": [],
            "more_files": 0,
            "gpu_gib": None,
        }
        event = encode("step", step=last, total=12, loss=0.5, **facts)
        return fake_kohya(
            "import os, shutil, sys, time, tomllib\n"
            "model = tomllib.load(open(sys.argv[2], 'rb'))['output_dir'] + '/cats.safetensors'\n"
            f"print({event!r}, flush=True)\n"
            f"shutil.copy({str(kept)!r}, model)\n" + then
        )

    return make


@pytest.mark.parametrize("last", [1, 13])
def test_a_trainer_that_makes_fewer_or_more_steps_fails_though_it_wrote_a_model(
    root: Any, ending_kohya: Callable[..., Path], last: int
) -> None:
    run = root.run(ending_kohya(last))

    assert run.code == 1
    assert run.failure.startswith(f"The trainer stopped after step {last} of 12.")


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ("os.abort()", "The trainer ended with exit code -6."),
        ("time.sleep(60)", "The trainer wrote nothing for 2 seconds after step 12"),
    ],
)
def test_a_trainer_that_crashes_or_hangs_when_all_is_made_loses_nothing(
    root: Any, ending_kohya: Callable[..., Path], then: str, told: str
) -> None:
    """As in the libraries through which several GPUs speak."""
    run = root.run(ending_kohya(12, then), STALL_SECONDS="2")

    assert run.code == 0, run.output
    assert f"note: the training was over when this happened: {told}" in run.output
    assert root.provenance()["steps"] == 12


@pytest.mark.parametrize(("last", "then"), [(11, "os.abort()"), (12, "os.truncate(model, 2000)\nos.abort()")])
def test_a_trainer_that_crashes_before_all_is_made_has_crashed(
    root: Any, ending_kohya: Callable[..., Path], last: int, then: str
) -> None:
    run = root.run(ending_kohya(last, then))

    assert run.code == 1
    assert run.failure.startswith("The trainer ended with exit code -6.")


def test_a_large_batch_of_files_with_long_names_hides_no_step(root: Any) -> None:
    """All their names together are longer than a line may be."""
    place = root.dataset / "10_sks cat"
    root.add_images(count=24)
    for path in sorted(place.iterdir()):
        path.rename(path.with_name(f"{'ねこ' * 20}{path.name}"))
    root.write_plan(max_train_steps=12, train_batch_size=24, learning_rate=1e30)

    run = root.run()

    assert run.code == 1
    assert "failure class=not-finite" in run.output
    assert re.search(r"at step \d+, in the batch of (ねこ){20}\d+\.png, .* and 20 more\.", run.failure)


def test_a_failure_of_the_container_beside_the_trainer_quotes_what_the_trainer_said(
    root: Any, fake_kohya: Callable[[str], Path]
) -> None:
    event = encode("state", step=3, path="/nowhere", seconds=0.1, batches=4, asked=False)
    home = fake_kohya(f"print('the last that was heard', flush=True)\nprint({event!r}, flush=True)\n")

    run = root.run(home)

    assert run.code == 1
    assert run.failure.startswith("The training container itself failed (FileNotFoundError: ")
    assert "the last that was heard" in run.failure
    assert "in _keep" in run.failure
    assert "Traceback" in run.output


def _run_until(root: Any, pattern: str, number: signal.Signals, **start: Any) -> Any:
    """Starts a run and sends the signal once a line matches; returns how it ended."""
    process = root.start(**start)
    read = []
    for line in process.stdout:
        read.append(line)
        if re.search(pattern, line):
            process.send_signal(number)
            break
    run = root.finish(process)
    return type(run)(code=run.code, output="".join(read) + run.output, failure=run.failure)


def _processes_of(root: Any) -> list[str]:
    """Command lines that name this root, of whatever is running."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if str(root.path) in line]


def test_sigterm_ends_the_trainer_and_tells_how_to_go_on(root: Any) -> None:
    root.write_plan(max_train_steps=2000)

    run = _run_until(root, r"^progress step=3 ", signal.SIGTERM)

    assert run.code == 1
    told = re.match(
        r"The training was interrupted after step (\d+)\. The state after step (\d+) is kept\.\nRemedy: Start it",
        run.failure,
    )
    assert told
    assert 3 <= int(told[2]) <= int(told[1])
    assert _processes_of(root) == []


def test_sigterm_after_the_last_step_does_not_throw_the_model_away(root: Any) -> None:
    run = _run_until(root, r"^progress step=12 ", signal.SIGTERM, REHEARSAL_STEP_SECONDS="0.5")

    assert run.code == 0, run.output
    assert run.failure == ""
    assert root.provenance()["steps"] == 12


def test_sigterm_before_the_first_step_ends_the_run_at_once(
    root: Any, fake_kohya: Callable[[str], Path]
) -> None:
    home = fake_kohya("import time; print('begun', flush=True); time.sleep(60)")

    began = time.monotonic()
    run = _run_until(root, r"^begun$", signal.SIGTERM, kohya_home=home)

    assert time.monotonic() - began < 20
    assert run.failure.startswith("The training was interrupted after step 0.\nRemedy: ")


def test_killing_the_entry_point_outright_leaves_no_trainer_behind(
    root: Any, fake_kohya: Callable[[str], Path]
) -> None:
    # Silent, so that it cannot learn of it from a broken pipe.
    home = fake_kohya("import os, time; print('begun', flush=True); os.close(1); os.close(2); time.sleep(60)")

    _run_until(root, r"^begun$", signal.SIGKILL, kohya_home=home)

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

    run = _run_until(
        root, r"^begun$", signal.SIGKILL, kohya_home=home, PATH=path, PYTHONPATH=str(tmp_path / "packages")
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


# (what the log says when the run is interrupted, how, the least step to go on from)
INTERRUPTIONS = [
    (r"^progress step=4 ", signal.SIGTERM, 4),
    (r"^checkpoint step=20 ", signal.SIGTERM, 20),  # between two epochs
    (r"^progress step=25 ", signal.SIGTERM, 25),
    (r"^progress step=27 ", signal.SIGKILL, 20),
    (r"save train state to .*step-00000020", signal.SIGKILL, 10),  # while that state is written
]


@pytest.mark.parametrize(("line", "number", "least"), INTERRUPTIONS)
def test_an_interrupted_run_continues_as_if_nothing_had_happened(
    uninterrupted: tuple[int, Any], root: Any, line: str, number: signal.Signals, least: int
) -> None:
    steps, whole = uninterrupted
    root.write_plan(max_train_steps=steps, lr_scheduler="cosine", learning_rate=1e-4)

    # Slowed down, so that the signal arrives at the step whose line it follows and not after the last one.
    interrupted = _run_until(root, line, number, **EVERY_TEN, REHEARSAL_STEP_SECONDS="0.05")
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
    interrupted = _run_until(
        root, r"^checkpoint step=10 ", signal.SIGKILL, **EVERY_TEN, REHEARSAL_STEP_SECONDS="0.05"
    )
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
    _run_until(root, r"^checkpoint step=20 ", signal.SIGKILL, **EVERY_TEN, REHEARSAL_STEP_SECONDS="0.05")
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
    _run_until(root, r"^checkpoint step=20 ", signal.SIGKILL, **EVERY_TEN, REHEARSAL_STEP_SECONDS="0.05")
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
    interrupted = _run_until(
        root, r"^progress step=12 ", signal.SIGTERM, **every, REHEARSAL_STEP_SECONDS="0.02"
    )
    assert re.findall(r"^checkpoint step=(\d+) ", interrupted.output, re.MULTILINE) == ["5", "10"]

    run = root.run()

    assert run.code == 0, run.output
    assert "resuming after step 10 of 40" in run.output
    assert [step for step, _ in root.losses()] == list(range(1, 41))


def test_a_state_of_other_options_is_not_continued(root: Any) -> None:
    root.write_plan(max_train_steps=30)
    _run_until(root, r"^checkpoint step=10 ", signal.SIGTERM, **EVERY_TEN)
    root.write_plan(max_train_steps=30, learning_rate=1e-4)

    run = root.run()

    assert run.code == 0, run.output
    assert "resuming" not in run.output


def test_the_samples_and_history_survive_in_the_uploaded_folder_only(root: Any) -> None:
    root.run()

    delivered = {path.name for path in (root.path / "model").iterdir()}
    assert delivered == {*MODEL_FILES, "provenance.json", "samples"}
    assert json.loads((root.path / "model" / "loss.jsonl").read_text().splitlines()[0])["step"] == 1
    assert os.access(root.path / "model" / "cats.safetensors", os.R_OK)
