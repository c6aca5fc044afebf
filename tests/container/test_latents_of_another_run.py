"""Whole runs that find the latents of an earlier one, with the stand-in for Kohya."""

import json
from collections.abc import Callable

from fine_tuning.kept_latents import READING_VERSIONS
from kohya_trainer.environment import HOOKED_VERSIONS

from .conftest import TrainingRoot

FOUND = "images have their latents from an earlier launch"


def test_another_run_finds_the_latents_of_images_that_both_have(
    root: TrainingRoot, new_root: Callable[[str], TrainingRoot]
) -> None:
    root.write_plan(cache_latents_to_disk=True)
    assert root.run().code == 0
    kept = root.path / "checkpoints" / "latents"
    (folder,) = kept.iterdir()
    made = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(made) == 4

    # Other captions, another folder and learning rate, and one image more.
    other = new_root("other")
    other.add_images("5_sks tabby", count=5)
    (other.dataset / "5_sks tabby" / "0.txt").write_text("a sks cat", encoding="utf-8")
    other.write_plan(cache_latents_to_disk=True, learning_rate=5e-4, max_train_steps=6)
    place = other.path / "checkpoints" / "latents" / folder.name
    place.mkdir(parents=True)
    for name, content in made.items():
        (place / name).write_bytes(content)
    run = other.run()

    assert run.code == 0
    assert f"4 {FOUND}" in run.output
    now = {path.name: path.read_bytes() for path in place.iterdir()}
    assert {name: now[name] for name in made} == made
    assert len(now) == 5
    assert json.loads((other.path / "work" / "orders.json").read_bytes())["latents"] == str(place)


def test_latents_of_another_resolution_are_not_found(root: TrainingRoot) -> None:
    root.write_plan(cache_latents_to_disk=True)
    assert root.run().code == 0
    root.write_plan(cache_latents_to_disk=True, resolution="512,512")
    run = root.run()

    assert run.code == 0
    assert FOUND not in run.output
    assert len(list((root.path / "checkpoints" / "latents").iterdir())) == 2


def test_latents_are_copied_for_the_trainers_that_are_told_where_they_lie() -> None:
    assert READING_VERSIONS == HOOKED_VERSIONS
