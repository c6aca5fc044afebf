"""Kohya's own loop with the hooks in it, interrupted and gone on with, against a run that was not.

Needs torch and kohya_ss v25.2.2 in KOHYA_HOME: `./dev test-image` runs it in the image that it has built, elsewhere it
is skipped. Small models stand in the place of SDXL's (small_trainer.py); the loop is the real one.
"""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors import safe_open

import kohya_trainer
from kohya_trainer import orders
from kohya_trainer.command import TRAINER_PROCESS, entry_point
from kohya_trainer.orders import Orders
from kohya_trainer.resume import Loop, resume_point
from kohya_trainer.toml_text import to_toml
from kohya_trainer.trainer_events import decode

pytest.importorskip("torch", reason="torch is in the training image alone")
KOHYA_HOME = os.environ.get("KOHYA_HOME")
pytestmark = pytest.mark.skipif(not KOHYA_HOME, reason="KOHYA_HOME is not set")

# 15 batches an epoch.
COMMON: dict[str, Any] = {
    "pretrained_model_name_or_path": "small",
    "network_module": "networks.lora",
    "network_dim": 2,
    "network_train_unet_only": True,
    "resolution": "64,64",
    "train_batch_size": 2,
    "seed": 3,
    "caption_extension": ".txt",
    "max_data_loader_n_workers": 0,
    "optimizer_type": "AdamW",
    "learning_rate": 1e-2,
    "lr_scheduler": "cosine",
    "mixed_precision": "no",
    "output_name": "small",
    "save_model_as": "safetensors",
    "validation_split": 0.25,
}
BY_STEPS = {"save_every_n_steps": 4, "save_last_n_steps": 12, "validate_every_n_steps": 6}
BY_EPOCHS = {"save_every_n_epochs": 1, "sample_every_n_epochs": 1}
ACCUMULATED = {**BY_EPOCHS, "gradient_accumulation_steps": 4}
# (options, steps in all, batches of an epoch, steps after which a state is saved and gone on from)
RUNS = {
    "within an epoch": ({**BY_STEPS, "sample_every_n_steps": 6}, 34, 15, 12),
    "at an epoch's end": ({**BY_STEPS, **BY_EPOCHS}, 34, 15, 15),
    "accumulated": (ACCUMULATED, 11, 15, 4),
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images" / "10_cat"
    folder.mkdir(parents=True)
    for index in range(4):
        Image.new("RGB", (64, 64), (60 * index, 255 - 60 * index, 99)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"cat, number {index}")
    return folder.parent


class Launch:
    """Of one folder, in which a launch goes on from the state of the one before."""

    def __init__(self, folder: Path, images: Path, options: dict[str, Any], total: int) -> None:
        self.folder = folder
        (folder / "output").mkdir(parents=True)
        (folder / "prompts.txt").write_text("cat --w 64 --h 64 --d 7\n")
        self._options = {
            **COMMON,
            **options,
            "train_data_dir": str(images),
            "output_dir": str(folder / "output"),
            "sample_prompts": str(folder / "prompts.txt"),
            "max_train_steps": total,
        }
        self._orders = Orders(
            states=str(folder / "states"),
            save_now=str(folder / "save-now"),
            samples=True,
            sample_every=options.get("sample_every_n_steps"),
        )

    def run(self, save_every: int, resume: Any = None, **orders_besides: Any) -> list[dict[str, Any]]:
        """The events until the end."""
        told = replace(self._orders, save_every=save_every, **orders_besides)
        options = dict(self._options)
        if resume:
            told = replace(
                told,
                done=resume.done,
                counter_start=resume.counter_start,
                resume=str(resume.state),
                exact=resume.exact,
            )
            options |= {"resume": str(resume.state), "initial_step": resume.initial_step}
            options["skip_until_initial_step"] = resume.skip
        config = self.folder / "config.toml"
        config.write_text(to_toml(options))
        told.write(self.folder / "orders.json")
        trainer = entry_point(Path(str(KOHYA_HOME))).parent
        path = os.pathsep.join((str(trainer), str(Path(kohya_trainer.__file__).parents[1])))
        script = Path(__file__).with_name("small_trainer.py")
        done = subprocess.run(
            [sys.executable, str(TRAINER_PROCESS), str(script), "--config_file", str(config)],
            env={**os.environ, "PYTHONPATH": path, orders.VARIABLE: str(self.folder / "orders.json")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return [event for line in done.stdout.splitlines() if (event := decode(line))]

    def results(self) -> dict[str, tuple[Any, ...]]:
        """Models and pictures by their names; of each its step first."""
        found: dict[str, tuple[Any, ...]] = {}
        for path in (self.folder / "output").rglob("*.safetensors"):
            with safe_open(path, framework="pt") as model:
                tensors = {name: model.get_tensor(name).tolist() for name in model.keys()}  # noqa: SIM118, it is no dict
                steps, epoch = (int(model.metadata()[name]) for name in ("ss_steps", "ss_epoch"))
                found[path.name] = (steps, epoch, tensors)
        for path in (self.folder / "output" / "sample").glob("*.png"):
            # Its name ends with the time and the seed.
            name = path.name.rsplit("_", 2)[0]
            found[name] = (int(name.split("_")[1]), Image.open(path).tobytes())
        return found


def facts(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (event["event"], event["step"], event["loss"], event.get("learning_rate"), event.get("files"))
        for event in events
        if event["event"] in ("step", "validation")
    ]


@pytest.mark.parametrize("name", RUNS)
def test_a_restart_of_the_real_loop_makes_what_an_uninterrupted_run_makes(
    name: str, images: Path, tmp_path: Path
) -> None:
    options, total, batches, saved = RUNS[name]
    whole, broken = (Launch(tmp_path / side, images, options, total) for side in ("whole", "broken"))
    expected = facts(whole.run(total))

    # The state's launch goes on to its end; of what it makes, a restart has what was there with the state.
    events = broken.run(saved)
    place = next(index for index, event in enumerate(events) if event["event"] == "state")
    assert events[place]["batches"] == batches
    before = facts(events[:place])
    for path in (broken.folder / "output").rglob("*.*"):
        path.unlink()
    loop = Loop(batches, options.get("gradient_accumulation_steps", 1), total)
    after = facts(broken.run(total, resume_point(Path(events[place]["path"]), saved, loop, hooked=True)))

    assert before + after == expected
    results, made_again = whole.results(), broken.results()
    assert made_again == {name: made for name, made in results.items() if made[0] > saved}
    assert len(made_again) > 1


def test_a_training_of_the_real_loop_that_ends_early_draws_its_prompts(images: Path, tmp_path: Path) -> None:
    launch = Launch(tmp_path / "early", images, {"validate_every_n_steps": 4}, 30)

    events = launch.run(30, patience=1, best_loss=0.0)

    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3, 4]
    assert events[-1]["stop"]
    assert {name: made[0] for name, made in launch.results().items()} == {"small_000004_00": 4}


def test_a_picture_without_room_on_the_gpu_is_left_out_of_the_real_loop(images: Path, tmp_path: Path) -> None:
    launch = Launch(tmp_path / "pictures", images, {"sample_every_n_steps": 2}, 4)
    prompts = "cat --w 64 --h 64 --d 7\ncat --w 4096 --h 4096 --d 7\ncat --w 64 --h 64 --d 7\n"
    (launch.folder / "prompts.txt").write_text(prompts)

    events = launch.run(4)

    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3, 4]
    assert [event["index"] for event in events if event["event"] == "no-picture"] == [1, 1]
    drawn = {name for name in launch.results() if name.count("_") == 2}
    assert drawn == {f"small_{step:06}_{index:02}" for step in (2, 4) for index in (0, 2)}


def test_no_state_is_saved_of_weights_that_a_gradient_broke_in_the_real_loop(
    images: Path, tmp_path: Path
) -> None:
    # The first step's weights are beyond what float32 holds.
    options = {
        "optimizer_type": "SGDNesterov",
        "learning_rate": 3e38,
        "lr_scheduler": "constant",
        "max_grad_norm": 0.0,
        "network_alpha": 1e4,
    }

    events = Launch(tmp_path / "broken", images, options, 2).run(1)

    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert math.isfinite(losses[0])
    assert not math.isfinite(losses[1])
    assert not [event for event in events if event["event"] == "state"]


LOOKING = """
import random, sys
from library import train_util
from rich.style import Style

before = random.getstate()
Style(link="log")
print(random.getstate() == before, train_util.BaseDataset.get_image_size(None, sys.argv[1]))
"""


def test_the_trainers_process_logs_without_drawing_and_measures_images_as_they_are_decoded(
    tmp_path: Path,
) -> None:
    """Both are wrong in the trainer with the image's own versions of Rich and imagesize."""
    picture, script, told = tmp_path / "picture.webp", tmp_path / "looking.py", tmp_path / "orders.json"
    exif = Image.Exif()
    exif[0x010E] = "a cat"
    Image.new("RGB", (65, 33)).save(picture, exif=exif)
    script.write_text(LOOKING)
    Orders(states=str(tmp_path), save_now=str(tmp_path / "save-now")).write(told)
    path = os.pathsep.join(
        (str(entry_point(Path(str(KOHYA_HOME))).parent), str(Path(kohya_trainer.__file__).parents[1]))
    )

    seen = {
        hooked: subprocess.run(
            [sys.executable, *([str(TRAINER_PROCESS)] if hooked else []), str(script), str(picture)],
            env={**os.environ, "PYTHONPATH": path, orders.VARIABLE: str(told)},
            capture_output=True,
            text=True,
        ).stdout.splitlines()[-1:]
        for hooked in (True, False)
    }

    assert seen == {True: ["True (65, 33)"], False: ["False (64, 32)"]}
