"""The model of memory and seconds, against what was measured."""

import json
from pathlib import Path
from typing import Any

import pytest

from kohya_trainer import recipe
from tests.recipe_data import CHARACTER, MEGAPIXEL

REPOSITORY = Path(__file__).resolve().parents[2]
FIGURES = json.loads((REPOSITORY / "container/kohya_trainer/speed.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", FIGURES["memory"]["measured"], ids=lambda row: str(row))
def test_the_memory_model_meets_every_measured_peak_within_a_tenth(row: dict[str, Any]) -> None:
    predicted = recipe.memory_gib(CHARACTER, row["batch"], MEGAPIXEL, row["again"], row["execution"])
    assert predicted == pytest.approx(row["peak_gib"], rel=0.1)


def test_insides_are_computed_again_only_where_memory_demands_it() -> None:
    batch = {**CHARACTER, "train_batch_size": 16}
    shares = [recipe.computed_again(batch, 16, MEGAPIXEL, memory) for memory in (22.0, 44.5, 79.1, 139.8)]
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0.0
    for memory, share in zip((22.0, 44.5, 79.1, 139.8), shares, strict=True):
        assert recipe.fits(batch, 16, MEGAPIXEL, share, memory, "fast")


@pytest.mark.parametrize("said", [{"mixed_precision": "no"}, {}], ids=["no", "nothing"])
def test_single_precision_takes_twice_the_room_but_for_what_learns(said: dict[str, str]) -> None:
    half = {**CHARACTER, "train_batch_size": 8}
    single = {**{name: value for name, value in half.items() if name != "mixed_precision"}, **said}
    assert recipe.memory_gib(half, 8, MEGAPIXEL, 0.0) == pytest.approx(48.9, rel=0.01)  # measured
    assert recipe.memory_gib(single, 8, MEGAPIXEL, 0.0) == pytest.approx(96.5, rel=0.01)
    assert recipe.memory_gib(half, 8, MEGAPIXEL, 1.0) == recipe.memory_gib(
        {**half, "mixed_precision": "fp16"}, 8, MEGAPIXEL, 1.0
    )
    shares = [recipe.computed_again(of, 8, MEGAPIXEL, 79.1) for of in (half, single)]
    assert shares == [0.0, 0.5]


def test_the_trainers_own_network_is_checkpointed_whole_or_not_at_all() -> None:
    assert recipe.computed_again(CHARACTER, 16, MEGAPIXEL, 79.1, "plain") == 1.0
    assert recipe.computed_again(CHARACTER, 4, MEGAPIXEL, 79.1, "plain") == 0.0


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


@pytest.mark.parametrize("name", ["caption_options.py", "latent_options.py", "recipe.py", "speed.json"])
def test_the_functions_hold_the_same_bytes(name: str) -> None:
    copy = (REPOSITORY / "functions/fine_tuning" / name).read_bytes()
    assert copy == (REPOSITORY / "container/kohya_trainer" / name).read_bytes()
