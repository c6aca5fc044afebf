"""The stand-in behaves as Kohya does where this project relies on it, and really learns."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from .conftest import Trainer, losses


def tensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, it is no dict


def test_the_loss_falls_because_something_is_learnt(trainer: Trainer) -> None:
    frozen = trainer.run("frozen", max_train_steps=40, learning_rate=0.0)
    learning = trainer.run("learning", max_train_steps=40)

    assert learning.returncode == 0, learning.stderr
    assert losses(learning)[-1] < 0.8 * losses(frozen)[-1]


def test_the_gradient_is_the_derivative_of_the_loss() -> None:
    from rehearsal_trainer.network import CAPTION_SIZE, TIME_SIZE, TOKEN_SIZE, Network

    rng = np.random.default_rng(0)
    network = Network(rank=4, alpha=4.0, seed=0)
    for array in network.parameters().values():
        array += rng.standard_normal(array.shape).astype(np.float32) * np.float32(0.02)
    example = (
        rng.standard_normal((16, TOKEN_SIZE), dtype=np.float32),
        rng.standard_normal((16, TIME_SIZE + CAPTION_SIZE), dtype=np.float32),
        rng.standard_normal((16, TOKEN_SIZE), dtype=np.float32),
    )
    _, gradients = network.loss_and_gradients(*example)
    for name in random.Random(0).sample(sorted(gradients), 6):
        array, direction = network.parameters()[name], gradients[name] / np.linalg.norm(gradients[name])
        step = np.float32(1e-2)
        array += step * direction
        above, _ = network.loss_and_gradients(*example)
        array -= 2 * step * direction
        below, _ = network.loss_and_gradients(*example)
        array += step * direction
        slope = (above - below) / (2 * float(step))
        assert slope == pytest.approx(float(np.linalg.norm(gradients[name])), rel=2e-2), name


def test_the_log_has_kohyas_lines(trainer: Trainer) -> None:
    done = trainer.run("out", train_batch_size=3)

    assert "running training / 学習開始" in done.stdout
    assert "num train images * repeats / 学習画像の数×繰り返し回数: 40" in done.stdout
    # Two buckets of 20, each batched on its own: 7 + 7, not ceil(40 / 3).
    assert "num batches per epoch / 1epochのバッチ数: 14" in done.stdout
    assert "total optimization steps / 学習ステップ数: 10" in done.stdout
    assert "contains 4 image files" in done.stderr
    assert done.stderr.count("\rsteps: ") == 1 + 2 * 10 + 1


def test_epochs_repeats_batches_and_accumulation_make_the_steps(trainer: Trainer) -> None:
    done = trainer.run("out", max_train_epochs=1, gradient_accumulation_steps=3)

    assert "total optimization steps / 学習ステップ数: 7" in done.stdout
    assert "| 7/7 [" in done.stderr


def test_the_model_has_kohyas_names_shapes_and_metadata(trainer: Trainer) -> None:
    trainer.run("out")

    path = trainer.folder / "out" / "cats.safetensors"
    found = tensors(path)
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    assert found[f"{name}.lora_down.weight"].shape == (8, 640)
    assert found[f"{name}.lora_up.weight"].shape == (640, 8)
    assert float(found[f"{name}.alpha"]) == 4.0
    assert all(array.dtype == np.float16 and np.isfinite(array).all() for array in found.values())
    with safe_open(path, framework="numpy") as opened:
        metadata = opened.metadata()
    assert metadata["rehearsal"] == "true"
    assert metadata["ss_network_dim"] == "8"
    assert json.loads(metadata["ss_dataset_dirs"]) == {"10_sks cat": {"n_repeats": 10, "img_count": 4}}


def test_the_model_is_small_at_the_usual_rank(trainer: Trainer) -> None:
    trainer.run("out", max_train_steps=1, network_dim=32)

    assert (trainer.folder / "out" / "cats.safetensors").stat().st_size < 10_000_000


def test_without_images_it_says_so_and_succeeds_as_kohya_does(tmp_path: Path) -> None:
    empty = Trainer(tmp_path)
    (tmp_path / "images" / "10_sks cat").mkdir(parents=True)

    done = empty.run("out")

    assert done.returncode == 0
    assert "No data found" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_without_repeats_is_passed_over(trainer: Trainer) -> None:
    trainer.add("cats", [(64, 64)])

    assert "学習画像の数×繰り返し回数: 40" in trainer.run("out").stdout


def test_a_broken_image_ends_it_with_pillows_words(trainer: Trainer) -> None:
    (trainer.folder / "images" / "10_sks cat" / "2.png").write_bytes(b"nothing")

    done = trainer.run("out")

    assert done.returncode == 1
    assert "cannot identify image file" in done.stderr


def test_a_loss_that_is_not_a_number_does_not_stop_it(trainer: Trainer) -> None:
    done = trainer.run("out", learning_rate=1e30)

    assert done.returncode == 0
    assert not math.isfinite(losses(done)[-1])


def test_a_run_in_two_parts_gives_the_same_model_as_in_one(trainer: Trainer) -> None:
    schedule = {"lr_scheduler": "cosine", "max_train_steps": 40}
    whole = trainer.run("whole", save_state=True, save_every_n_steps=25, **schedule)
    state = trainer.folder / "whole" / "cats-step00000025-state"
    assert json.loads((state / "train_state.json").read_bytes()) == {"current_epoch": 2, "current_step": 25}

    rest = trainer.run(
        "rest", "--resume", str(state), "--initial_step", "25", "--skip_until_initial_step", **schedule
    )

    assert rest.returncode == 0, rest.stderr
    one, other = (tensors(trainer.folder / name / "cats.safetensors") for name in ("whole", "rest"))
    assert all((one[name] == other[name]).all() for name in one)
    assert len(losses(whole)) == 40
    assert len(losses(rest)) == 15


def test_old_states_are_removed_as_configured(trainer: Trainer) -> None:
    trainer.run("out", save_state=True, save_every_n_steps=2, save_last_n_steps_state=4)

    steps = sorted(path.name for path in (trainer.folder / "out").glob("*-step*-state"))
    assert steps == [f"cats-step{step:08d}-state" for step in (6, 8, 10)]


def test_the_command_line_wins_over_the_file_and_unknown_arguments_are_refused(trainer: Trainer) -> None:
    assert "学習ステップ数: 3" in trainer.run("out", "--max_train_steps", "3").stdout
    assert trainer.run("out", "--max_train_step", "3").returncode == 2
    assert trainer.run("out", not_an_option=1).returncode == 0  # a file's unknown key does nothing


def test_prompts_are_drawn_when_they_are_due(trainer: Trainer) -> None:
    prompts = trainer.folder / "prompts.txt"
    prompts.write_text("# a comment\nsks cat, sitting --w 128 --h 256 --d 5\nsks cat\n", encoding="utf-8")

    trainer.run("out", sample_prompts=str(prompts), sample_every_n_steps=5)

    drawn = sorted((trainer.folder / "out" / "sample").glob("*.png"))
    assert len(drawn) == 4
    assert drawn[0].name.startswith("cats_000005_00_")
    assert drawn[0].name.endswith("_5.png")
    assert Image.open(drawn[0]).size == (128, 256)


@pytest.mark.parametrize(
    ("size", "options", "bucket"),
    [
        ((1000, 1000), {}, (1024, 1024)),
        ((1600, 900), {}, (1344, 768)),
        ((900, 1600), {}, (768, 1344)),
        ((640, 480), {"bucket_no_upscale": True}, (640, 448)),
        ((4000, 3000), {"bucket_no_upscale": True}, (1088, 832)),
        ((500, 100), {"enable_bucket": False}, (1024, 1024)),
    ],
)
def test_an_image_goes_to_kohyas_bucket(
    size: tuple[int, int], options: dict[str, Any], bucket: tuple[int, int]
) -> None:
    from argparse import Namespace

    from rehearsal_trainer.dataset import select_bucket

    args = {
        "resolution": "1024,1024",
        "enable_bucket": True,
        "bucket_no_upscale": False,
        "bucket_reso_steps": 64,
    }
    args |= {"min_bucket_reso": 256, "max_bucket_reso": 2048}

    assert select_bucket(size, Namespace(**{**args, **options})) == bucket
