"""Each class of failure provoked through the entry point; validation, regularization and privacy of a whole run."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

CUT_IMAGE = """
import pathlib, sys, tomllib
from PIL import Image
place = pathlib.Path(tomllib.load(open(sys.argv[2], "rb"))["train_data_dir"]) / "10_sks cat" / "cut.png"
place.write_bytes(b"no image")
Image.open(place)
"""
# class → (a trainer that fails as the real one does, how output/failure begins)
FAILING = {
    "out-of-gpu-memory": (
        "raise RuntimeError('CUDA out of memory. Tried to allocate 320.00 MiB')",
        "The GPU ran out of memory.",
    ),
    "out-of-host-memory": (
        "import os; os.kill(os.getpid(), 9)",
        "The trainer was killed, most likely because",
    ),
    "disk-full": ("open('/dev/full', 'w').write('x' * 10000)", "A disk is full: "),
    "corrupt-image": (
        CUT_IMAGE,
        "An image cannot be read (",
    ),
    "base-model": (
        "raise OSError('a/b is not a local folder and is not a valid model identifier')",
        "The base model cannot be loaded",
    ),
    "no-network": (
        "import socket; socket.getaddrinfo('no-such-host.invalid', 443)",
        "The model hub cannot be reached.",
    ),
    "bad-config": (
        "assert False, 'network for Text Encoder cannot be trained with caching'",
        "Kohya refuses the configuration (",
    ),
    "trainer-crash": ("{}['missing']", "The trainer ended with exit code 1 (KeyError: 'missing')."),
    "unknown": ("print('all is well')", "The trainer ended without an error and without a model."),
}


@pytest.mark.parametrize("kind", FAILING)
def test_each_class_of_failure_is_told_by_one_sentence_and_one_remedy(
    kind: str, root: Any, fake_kohya: Callable[[str], Path]
) -> None:
    source, sentence = FAILING[kind]

    run = root.run(fake_kohya(source))

    assert run.code == 1
    assert f"failure class={kind}\n" in run.output
    cause, remedy, *_ = run.failure.splitlines()
    assert cause.startswith(sentence)
    assert re.fullmatch(r"Remedy: \S.*\.", remedy)
    assert len(f"{cause}\n{remedy}") <= 1024
    assert not (root.path / "model").exists()


def test_on_a_full_disk_what_nobody_needs_makes_room_for_the_reason(
    root: Any, fake_kohya: Callable[[str], Path]
) -> None:
    run = root.run(fake_kohya(FAILING["disk-full"][0]))

    assert run.failure.startswith("A disk is full: ")
    assert not (root.path / "work").exists()


def test_a_trainer_that_says_nothing_any_more_is_stopped(
    root: Any, fake_kohya: Callable[[str], Path]
) -> None:
    home = fake_kohya("import time; print('loading', flush=True); time.sleep(60)")

    run = root.run(home, STALL_SECONDS="5")

    assert "failure class=stalled\n" in run.output
    assert run.failure.startswith("The trainer wrote nothing for ")
    assert "loading" in run.failure


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="numpy") as model:
        return dict(model.metadata())


def test_a_validation_ends_the_training_and_the_best_weights_are_delivered(root: Any) -> None:
    root.add_images(count=8)
    # So fast a rate that the held-out images get worse while the others are learnt.
    root.write_plan(max_train_steps=600, validation_split=0.25, learning_rate=0.01)
    plan = root.path / "input" / "data" / "config" / "plan.json"
    plan.write_text(json.dumps({**json.loads(plan.read_bytes()), "validation_patience": 2}))

    run = root.run()

    assert run.code == 0, run.output
    told = root.provenance()
    lines = [json.loads(line) for line in (root.path / "model" / "validation.jsonl").read_text().splitlines()]
    best = min(lines, key=lambda line: float(line["loss"]))
    assert told["best_validation"] == {"step": best["step"], "loss": best["loss"]}
    assert told["stopped_early"] is True
    assert told["steps"] < 600
    assert lines[-1]["step"] == told["steps"]
    assert len([line for line in lines if line["step"] > best["step"]]) == 2
    metadata = _metadata(root.path / "model" / "cats.safetensors")
    assert metadata["ss_steps"] == str(best["step"])
    # Saved amid a validation, it does not name the timestep that is validated with as those of its training.
    assert "modelspec.timestep_range" not in metadata
    drawn = [path.name.split("_")[1] for path in (root.path / "model" / "samples").iterdir()]
    assert drawn == [f"{told['steps']:06d}"]


def test_without_a_worse_validation_the_last_weights_are_delivered(root: Any) -> None:
    root.write_plan(max_train_steps=45, validation_split=0.25, learning_rate=1e-5, min_timestep=100)

    run = root.run()

    assert run.code == 0, run.output
    assert root.provenance()["stopped_early"] is False
    metadata = _metadata(root.path / "model" / "cats.safetensors")
    assert (metadata["ss_steps"], metadata["modelspec.timestep_range"]) == ("45", "100,1000")


def test_regularization_images_are_trained_with(root: Any) -> None:
    for folder in ("reg/1_cat",):
        root.add_images(folder, count=3)
    root.write_plan()

    run = root.run()

    assert run.code == 0, run.output
    assert re.search(r"num reg images.*: 40$", run.output, re.MULTILINE)
    metadata = _metadata(root.path / "model" / "cats.safetensors")
    assert json.loads(metadata["ss_reg_dataset_dirs"]) == {"1_cat": {"n_repeats": 1, "img_count": 3}}


def test_a_private_run_delivers_neither_prompts_nor_tags_nor_folders(root: Any) -> None:
    plan = root.path / "input" / "data" / "config" / "plan.json"
    words = {
        "metadata_tags": "of a patient",
        "training_comment": "of a patient",
        "caption_prefix": "of a patient",
    }
    root.write_plan(**words, mixed_precision="bf16")
    plan.write_text(json.dumps({**json.loads(plan.read_bytes()), "privacy": True}))

    run = root.run()

    assert run.code == 0, run.output
    assert root.provenance()["options"]["mixed_precision"] == "bf16"
    assert root.provenance()["options"]["network_module"] == "networks.lora"
    for path in (root.path / "model").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert b"on a sofa" not in content, path.name
        assert b"of a patient" not in content, path.name
        assert b"sks cat" not in content, path.name
    assert "on a sofa" not in run.output


def test_a_model_in_between_tells_its_own_steps_and_nothing_of_the_last_one(root: Any) -> None:
    root.write_plan(save_every_n_steps=5)

    root.run()

    told = json.loads(
        _metadata(root.path / "model" / "cats-step00000005.safetensors")["fine_tuning.provenance"]
    )
    assert told["steps"] == 5
    assert not {"final_loss", "up_norm"} & set(told)
    last = json.loads(_metadata(root.path / "model" / "cats.safetensors")["fine_tuning.provenance"])
    assert (last["steps"], last["up_norm"]) == (12, root.provenance()["up_norm"])


def test_the_model_and_its_pictures_tell_where_they_come_from(root: Any) -> None:
    root.run()

    metadata = _metadata(root.path / "model" / "cats.safetensors")
    assert metadata["modelspec.license"] == "CC0-1.0"
    assert metadata["modelspec.trigger_phrase"] == "sks"
    assert json.loads(metadata["fine_tuning.provenance"])["dataset"] == root.provenance()["dataset"]
