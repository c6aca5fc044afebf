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


def learned(options: dict[str, Any], *by_user: str, **changed: Any) -> dict[str, Any]:
    given = {"buckets": square(640), "epochs": 10, "gpus": Gpus(1, 22.0), "kind": "H100", **changed}
    return recipe.learning(options, frozenset(by_user), **given).settings


def test_a_batch_grows_as_far_as_was_compared_and_the_rate_with_it() -> None:
    grown = {"train_batch_size": 8, "learning_rate": pytest.approx(1e-4 * 2**0.75, rel=0.01)}
    assert learned(CHARACTER) == grown
    assert learned(CHARACTER, gpus=Gpus(1, 139.8)) == grown


def test_a_batch_grows_no_further_than_the_gpu_has_room() -> None:
    needed = recipe.memory_gib(CHARACTER, 6, MEGAPIXEL, 1.0, "plain")
    assert learned(CHARACTER, gpus=Gpus(1, needed + 2))["train_batch_size"] == 6
    assert learned(CHARACTER, gpus=Gpus(1, 10.0)) == {}


def test_a_user_without_checkpointing_is_given_what_fits_without() -> None:
    without = {**CHARACTER, "gradient_checkpointing": False}
    assert learned(without, "gradient_checkpointing", gpus=Gpus(1, 44.5)) == {}
    assert learned(without, gpus=Gpus(1, 44.5))["train_batch_size"] == 8


def test_the_rate_can_be_left_as_it_is() -> None:
    assert learned(CHARACTER, scale_learning_rate=False) == {"train_batch_size": 8}


@pytest.mark.parametrize("name", sorted(recipe.BELONG_TO_THE_BATCH))
def test_nothing_is_changed_under_a_user_who_set_batch_rate_or_steps(name: str) -> None:
    assert learned(CHARACTER, name) == {}


def test_every_rate_and_the_warm_up_follow_the_batch() -> None:
    options = {**CHARACTER, "unet_lr": 2e-4, "text_encoder_lr": 1e-5, "lr_warmup_steps": 50}
    chosen = learned(options)
    assert chosen["lr_warmup_steps"] == 25
    for name in ("learning_rate", "unet_lr", "text_encoder_lr"):
        assert chosen[name] == pytest.approx(options[name] * 2**0.75, rel=0.01)


def test_a_batch_of_several_accumulated_ones_becomes_one() -> None:
    options = {**CHARACTER, "train_batch_size": 2, "gradient_accumulation_steps": 2}
    chosen = learned(options)
    assert (chosen["train_batch_size"], chosen["gradient_accumulation_steps"]) == (8, 1)


def test_a_short_run_keeps_enough_steps() -> None:
    assert learned(CHARACTER, buckets=square(160))["train_batch_size"] == 8  # 1,600 images, 200 steps
    assert learned(CHARACTER, buckets=square(159))["train_batch_size"] == 6
    assert learned(CHARACTER, buckets=square(100)) == {}


def test_a_batch_is_not_made_larger_than_its_buckets() -> None:
    assert learned(CHARACTER, buckets=[Filled(MEGAPIXEL, 6)] * 40)["train_batch_size"] == 8
    assert learned(CHARACTER, buckets=[Filled(MEGAPIXEL, 5)] * 40)["train_batch_size"] == 6


def test_several_gpus_multiply_the_images_of_a_step_by_themselves() -> None:
    assert learned(CHARACTER, gpus=Gpus(2, 79.1)) == {}


@pytest.mark.parametrize("kind", sorted(FIGURES["gpus"]))
def test_a_batch_grows_only_where_that_saves_time(kind: str) -> None:
    before, after = (64 // n * recipe.seconds_per_step(n, MEGAPIXEL, 1.0, kind, "plain") for n in (4, 8))
    assert (learned(CHARACTER, kind=kind) != {}) is (after <= 0.9 * before)
    assert (learned(CHARACTER, kind=kind) != {}) is (kind in ("H100", "H200"))


@pytest.mark.parametrize("optimizer", ["Prodigy", "DAdaptAdam", "Adafactor", "AdamWScheduleFree", "Lion"])
def test_optimizers_for_which_the_rule_was_not_made_keep_their_batch(optimizer: str) -> None:
    assert learned({**CHARACTER, "optimizer_type": optimizer}) == {}
    assert learned({**CHARACTER, "use_lion_optimizer": True}) == {}
    assert learned({**CHARACTER, "optimizer_type": "AdamW8bit"})["train_batch_size"] == 8


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


def test_the_cpus_of_a_host_are_shared_by_its_own_gpus() -> None:
    def workers(gpus: Gpus) -> int:
        chosen = recipe.execution(CHARACTER, NOBODY, MEGAPIXEL, gpus, 32).settings
        return int(chosen["max_data_loader_n_workers"])

    assert [workers(gpus) for gpus in (Gpus(1, 79.1), Gpus(4, 79.1), Gpus(8, 79.1, hosts=2))] == [8, 4, 4]


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
    every += recipe.learning(CHARACTER, NOBODY, square(640), 10, Gpus(1, 22.0), "H100").choices
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
