"""The resolver's decisions, and its memory model against measured peaks."""

import json
from pathlib import Path
from typing import Any

import pytest

from kohya_trainer import recipe
from kohya_trainer.recipe import Filled, Gpus

REPOSITORY = Path(__file__).resolve().parents[2]
FIGURES = json.loads((REPOSITORY / "container/kohya_trainer/speed.json").read_text(encoding="utf-8"))
CHARACTER: dict[str, Any] = {
    "network_dim": 32,
    "network_train_unet_only": True,
    "cache_text_encoder_outputs": True,
    "cache_latents": True,
    "optimizer_type": "AdamW",
    "train_batch_size": 4,
    "learning_rate": 1e-4,
    "sdpa": True,
}
MEGAPIXEL = 1024 * 1024
NOBODY: frozenset[str] = frozenset()


def square(images: int) -> list[Filled]:
    return [Filled(MEGAPIXEL, images)]


@pytest.mark.parametrize("row", FIGURES["memory"]["measured"], ids=lambda row: str(row))
def test_the_memory_model_meets_every_measured_peak_within_a_tenth(row: dict[str, Any]) -> None:
    predicted = recipe.memory_gib(CHARACTER, row["batch"], MEGAPIXEL, row["again"], row["execution"])
    assert predicted == pytest.approx(row["peak_gib"], rel=0.1)


def test_a_batch_grows_to_what_the_smallest_gpu_holds_and_the_rate_with_its_root() -> None:
    chosen = recipe.learning(CHARACTER, NOBODY, square(640), 10, Gpus(1, 22.0)).settings
    assert chosen == {"train_batch_size": 16, "learning_rate": 2e-4}


def test_the_rate_can_be_left_as_it_is() -> None:
    chosen = recipe.learning(CHARACTER, NOBODY, square(640), 10, Gpus(1, 22.0), scale_learning_rate=False)
    assert chosen.settings == {"train_batch_size": 16}


def test_a_rate_that_the_user_set_stays() -> None:
    chosen = recipe.learning(CHARACTER, frozenset({"learning_rate"}), square(640), 10, Gpus(1, 22.0))
    assert chosen.settings == {"train_batch_size": 16}


@pytest.mark.parametrize("name", ["train_batch_size", "gradient_accumulation_steps", "max_train_steps"])
def test_nothing_is_changed_under_a_user_who_counts_in_steps(name: str) -> None:
    assert recipe.learning(CHARACTER, frozenset({name}), square(640), 10, Gpus(1, 80.0)).choices == ()


def test_more_memory_does_not_change_what_is_learned_beyond_the_compared_span() -> None:
    small = recipe.learning(CHARACTER, NOBODY, square(640), 10, Gpus(1, 22.0)).settings
    assert recipe.learning(CHARACTER, NOBODY, square(640), 10, Gpus(1, 139.8)).settings == small


def test_a_short_run_keeps_enough_steps() -> None:
    chosen = recipe.learning(CHARACTER, NOBODY, square(100), 9, Gpus(1, 22.0)).settings
    assert chosen["train_batch_size"] == 8  # 900 images: 112 steps, where 12 images a step would make 75


def test_a_batch_is_not_made_larger_than_its_buckets() -> None:
    buckets = [Filled(MEGAPIXEL, 8) for _ in range(20)]
    assert recipe.learning(CHARACTER, NOBODY, buckets, 20, Gpus(1, 80.0)).settings["train_batch_size"] == 8


def test_several_gpus_share_the_images_of_a_step() -> None:
    chosen = recipe.learning(CHARACTER, NOBODY, square(640), 10, Gpus(4, 39.4)).settings
    assert chosen["train_batch_size"] == 4
    assert chosen["learning_rate"] == 2e-4  # 16 images a step instead of 4


@pytest.mark.parametrize("optimizer", ["Prodigy", "DAdaptAdam", "Adafactor", "AdamWScheduleFree"])
def test_optimizers_that_find_their_own_rate_keep_it(optimizer: str) -> None:
    options = {**CHARACTER, "optimizer_type": optimizer}
    chosen = recipe.learning(options, NOBODY, square(640), 10, Gpus(1, 39.4)).settings
    assert set(chosen) == {"train_batch_size"}


def test_insides_are_computed_again_only_where_memory_demands_it() -> None:
    batch = {**CHARACTER, "train_batch_size": 16}
    shares = [recipe.computed_again(batch, 16, MEGAPIXEL, memory) for memory in (22.0, 44.5, 79.1, 139.8)]
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0.0
    for memory, share in zip((22.0, 44.5, 79.1, 139.8), shares, strict=True):
        assert recipe.fits(batch, 16, MEGAPIXEL, share, memory, "fast")


def test_the_trainers_own_network_is_checkpointed_whole_or_not_at_all() -> None:
    assert recipe.computed_again(CHARACTER, 16, MEGAPIXEL, 79.1, "plain") == 1.0
    assert recipe.computed_again(CHARACTER, 4, MEGAPIXEL, 79.1, "plain") == 0.0


def test_an_execution_changes_nothing_that_is_learned() -> None:
    chosen = recipe.execution(CHARACTER, NOBODY, MEGAPIXEL, Gpus(1, 79.1), 16).settings
    learned = {"train_batch_size", "gradient_accumulation_steps", "learning_rate", "max_train_steps", "seed"}
    assert not learned & set(chosen)
    assert chosen["optimizer_args"] == ["fused=True"]


def test_an_execution_leaves_what_the_user_set() -> None:
    user = frozenset({"gradient_checkpointing", "optimizer_args", "max_data_loader_n_workers"})
    assert not user & set(recipe.execution(CHARACTER, user, MEGAPIXEL, Gpus(1, 79.1), 16).settings)


def test_captions_that_change_are_not_cached() -> None:
    options = {"network_train_unet_only": True, "shuffle_caption": True, "random_crop": True}
    chosen = recipe.execution(options, NOBODY, MEGAPIXEL, Gpus(1, 22.0), 8).settings
    assert "cache_text_encoder_outputs" not in chosen
    assert "cache_latents" not in chosen
    del options["shuffle_caption"], options["random_crop"]
    chosen = recipe.execution(options, NOBODY, MEGAPIXEL, Gpus(1, 22.0), 8).settings
    assert chosen["cache_text_encoder_outputs"]
    assert chosen["cache_latents"]


def test_every_choice_has_a_reason() -> None:
    every = recipe.execution({}, NOBODY, MEGAPIXEL, Gpus(2, 22.0), 8).choices
    every += recipe.learning(CHARACTER, NOBODY, square(640), 10, Gpus(1, 22.0)).choices
    assert all(choice.reason for choice in every)
    assert len(recipe.Recipe(every).lines()) == len(every)


def test_a_slower_gpu_takes_longer_and_a_small_batch_waits_for_launches_everywhere() -> None:
    seconds = [recipe.seconds_per_step(16, MEGAPIXEL, 1.0, gpu) for gpu in ("H200", "H100", "L40S", "L4")]
    assert seconds == sorted(seconds)
    assert recipe.seconds_per_step(1, MEGAPIXEL, 0.0, "H100") == recipe.seconds_per_step(
        1, MEGAPIXEL, 0.0, "H200"
    )


@pytest.mark.parametrize("execution", ["plain", "fast"])
@pytest.mark.parametrize(("again", "name"), [(0.0, "kept"), (1.0, "again")])
def test_the_measured_seconds_come_back(execution: str, again: float, name: str) -> None:
    for batch, seconds in FIGURES["seconds_per_step"][execution][name]["by_batch"]:
        got = recipe.seconds_per_step(batch, MEGAPIXEL, again, "H200", execution)
        assert got == pytest.approx(seconds, rel=0.02)


@pytest.mark.parametrize("name", ["recipe.py", "speed.json"])
def test_the_functions_hold_the_same_bytes(name: str) -> None:
    copy = (REPOSITORY / "functions/fine_tuning" / name).read_bytes()
    assert copy == (REPOSITORY / "container/kohya_trainer" / name).read_bytes()
