"""The entry point `train`, as a process, on a root like SageMaker's, with the CPU stand-in for Kohya."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from kohya_trainer.toml_text import to_toml

from .conftest import OPTIONS, REHEARSAL, slow_after

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
    run = root.run(KOHYA_VERSION="v99.0.0")

    assert "There is no option table for Kohya v99.0.0" in run.failure
    assert "python -m kohya_trainer.make_option_table v99.0.0" in run.failure


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

    root.run_until(r"^checkpoint step=10$", signal.SIGKILL, **version, **slow_after(10))
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


def test_the_samples_and_history_survive_in_the_uploaded_folder_only(root: Any) -> None:
    root.run()

    delivered = {path.name for path in (root.path / "model").iterdir()}
    assert delivered == {*MODEL_FILES, "provenance.json", "samples"}
    assert json.loads((root.path / "model" / "loss.jsonl").read_text().splitlines()[0])["step"] == 1
    assert os.access(root.path / "model" / "cats.safetensors", os.R_OK)
