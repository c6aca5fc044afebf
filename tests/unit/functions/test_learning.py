"""What the rule for images a step and the learning rate decides."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fine_tuning import learning, recipe
from fine_tuning.buckets import Bucket, Size
from fine_tuning.recipe import Gpus
from tests.recipe_data import CHARACTER, MEGAPIXEL, NOBODY

GPUS = json.loads(Path(recipe.__file__).with_name("speed.json").read_text(encoding="utf-8"))["gpus"]


SQUARE: Size = (1024, 1024)


def square(images: int) -> list[Bucket]:
    return [Bucket(SQUARE, images)]


def recomputed_on(kind: str) -> Callable[[Mapping[str, Any]], float]:
    """Seconds of a step of the trainer's own U-Net that computes everything again."""
    return lambda options: (
        options.get("gradient_accumulation_steps", 1)
        * recipe.seconds_per_step(options["train_batch_size"], MEGAPIXEL, 1.0, kind, "plain")
    )


def learned(options: dict[str, Any], *by_user: str, **changed: Any) -> dict[str, Any]:
    slow = recomputed_on("H100")
    given = {"buckets": square(640), "epochs": 10, "gpus": Gpus(1, 22.0), "seconds_per_step": slow, **changed}
    return learning.learning(options, frozenset(by_user), **given).settings


def test_a_batch_grows_as_far_as_was_compared_and_the_rate_with_it() -> None:
    grown = {"train_batch_size": 8, "learning_rate": pytest.approx(1e-4 * 2**0.75, rel=0.01)}
    assert learned(CHARACTER) == grown
    assert learned(CHARACTER, gpus=Gpus(1, 139.8)) == grown


def test_a_batch_grows_no_further_than_the_gpu_has_room() -> None:
    needed = recipe.memory_gib(CHARACTER, 6, MEGAPIXEL, 1.0, "plain")
    assert learned(CHARACTER, gpus=Gpus(1, needed + 2))["train_batch_size"] == 6
    assert learned(CHARACTER, gpus=Gpus(1, 10.0)) == {}


def test_a_batch_in_single_precision_needs_a_larger_gpu() -> None:
    single = {**CHARACTER, "mixed_precision": "no"}
    assert learned(single) == {}
    assert learned(single, gpus=Gpus(1, 44.5))["train_batch_size"] == 8


def test_a_user_without_checkpointing_is_given_what_fits_without() -> None:
    without = {**CHARACTER, "gradient_checkpointing": False}
    assert learned(without, "gradient_checkpointing", gpus=Gpus(1, 44.5)) == {}
    assert learned(without, gpus=Gpus(1, 44.5))["train_batch_size"] == 8


def test_the_rate_can_be_left_as_it_is() -> None:
    assert learned(CHARACTER, scale_learning_rate=False) == {"train_batch_size": 8}


@pytest.mark.parametrize("name", sorted(learning.BELONG_TO_THE_BATCH))
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
    assert learned(CHARACTER, buckets=[Bucket(SQUARE, 6)] * 40)["train_batch_size"] == 8
    assert learned(CHARACTER, buckets=[Bucket(SQUARE, 5)] * 40)["train_batch_size"] == 6


@pytest.mark.parametrize(("count", "batch"), [(2, 2), (4, 1)])
def test_several_gpus_share_the_images_of_a_step(count: int, batch: int) -> None:
    gpus = Gpus(count, 79.1)
    assert learned(CHARACTER, gpus=gpus, scale_batch=False) == {"train_batch_size": batch}
    accumulated = {**CHARACTER, "train_batch_size": 1, "gradient_accumulation_steps": 4}
    chosen = learned(accumulated, gpus=gpus, scale_batch=False)
    assert {**accumulated, **chosen} == {
        **CHARACTER,
        "train_batch_size": batch,
        "gradient_accumulation_steps": 1,
    }


def test_several_gpus_show_twice_as_many_where_that_pays() -> None:
    """Each shows two images in hardly more time than one."""
    rate = pytest.approx(1e-4 * 2**0.75, rel=0.01)
    assert learned(CHARACTER, gpus=Gpus(4, 79.1)) == {"train_batch_size": 2, "learning_rate": rate}
    assert learned(CHARACTER, gpus=Gpus(4, 79.1), buckets=square(159)) == {"train_batch_size": 1}  # 199 steps
    constant = {"gpus": Gpus(4, 79.1), "seconds_per_step": lambda options: float(options["train_batch_size"])}
    assert learned(CHARACTER, **constant) == {"train_batch_size": 1}


def test_more_gpus_than_images_show_one_each_and_the_rate_follows_as_far_as_was_compared() -> None:
    rate = pytest.approx(1e-4 * 2**0.75, rel=0.01)
    assert learned(CHARACTER, gpus=Gpus(8, 79.1)) == {"train_batch_size": 1, "learning_rate": rate}
    assert learned(CHARACTER, gpus=Gpus(8, 79.1), scale_learning_rate=False) == {"train_batch_size": 1}
    assert learned(CHARACTER, gpus=Gpus(16, 79.1)) == {"train_batch_size": 1}
    assert learned(CHARACTER, "unet_lr", gpus=Gpus(8, 79.1)) == {"train_batch_size": 1}


@pytest.mark.parametrize("name", sorted(learning.BELONG_TO_THE_BATCH - learning.IMAGES_OF_A_STEP))
def test_a_users_rate_or_steps_belong_to_the_presets_images_which_several_gpus_share(name: str) -> None:
    assert learned(CHARACTER, name, gpus=Gpus(4, 79.1)) == {"train_batch_size": 1}


@pytest.mark.parametrize("name", sorted(learning.IMAGES_OF_A_STEP))
def test_a_users_batch_is_each_gpus(name: str) -> None:
    assert learned(CHARACTER, name, gpus=Gpus(4, 79.1)) == {}


def test_a_warm_up_lasts_as_many_images_on_several_gpus() -> None:
    """The trainer's schedule moves on once for each GPU in a step."""
    options = {**CHARACTER, "lr_warmup_steps": 50}
    assert learned(options, gpus=Gpus(4, 79.1), scale_batch=False)["lr_warmup_steps"] == 200
    assert learned(options, gpus=Gpus(4, 79.1))["lr_warmup_steps"] == 100
    assert learned(options, gpus=Gpus(8, 79.1))["lr_warmup_steps"] == 200
    fraction = {**CHARACTER, "lr_warmup_steps": 0.1}
    assert "lr_warmup_steps" not in learned(fraction, gpus=Gpus(4, 79.1))


@pytest.mark.parametrize("kind", sorted(GPUS))
def test_a_batch_grows_only_where_that_saves_time(kind: str) -> None:
    seconds = recomputed_on(kind)
    before, after = (64 // n * seconds({"train_batch_size": n}) for n in (4, 8))
    assert (learned(CHARACTER, seconds_per_step=seconds) != {}) is (after <= 0.9 * before)
    assert (learned(CHARACTER, seconds_per_step=seconds) != {}) is (kind in ("A100 80GB", "H100", "H200"))


def test_a_batch_that_saves_less_than_a_tenth_of_the_given_seconds_is_not_chosen() -> None:
    for of_eight, batch in ((1.79, 8), (1.81, 6)):
        seconds = {4: 1.0, 6: 1.2, 8: of_eight}
        chosen = learned(
            CHARACTER, seconds_per_step=lambda options, of=seconds: of[options["train_batch_size"]]
        )
        assert chosen["train_batch_size"] == batch


def test_what_an_accumulated_step_takes_is_held_against_all_of_its_images() -> None:
    options = {**CHARACTER, "train_batch_size": 2, "gradient_accumulation_steps": 2}

    def seconds(of: Mapping[str, Any]) -> float:
        return 1.0 if of["gradient_accumulation_steps"] == 2 else 1.79

    assert learned(options, seconds_per_step=seconds)["train_batch_size"] == 8


@pytest.mark.parametrize("optimizer", ["Prodigy", "DAdaptAdam", "Adafactor", "AdamWScheduleFree", "Lion"])
def test_optimizers_for_which_the_rule_was_not_made_keep_their_batch(optimizer: str) -> None:
    assert learned({**CHARACTER, "optimizer_type": optimizer}) == {}
    assert learned({**CHARACTER, "use_lion_optimizer": True}) == {}
    assert learned({**CHARACTER, "optimizer_type": "AdamW8bit"})["train_batch_size"] == 8


def test_every_choice_has_a_reason() -> None:
    chosen = learning.learning(CHARACTER, NOBODY, square(640), 10, Gpus(1, 22.0), recomputed_on("H100"))
    assert all(choice.reason for choice in chosen.choices)
    assert len(chosen.lines()) == len(chosen.choices) > 0
