"""A recipe fits the GPU that it is quoted for, is made to, or is refused with what would."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fine_tuning import memory_fit
from tests.functions_data import file
from tests.unit.functions.test_plan import codes, decide

UNET = {
    "network_train_unet_only": True,
    "cache_text_encoder_outputs": True,
    "network_dim": 32,
    "mixed_precision": "bf16",
}
PIXELS = 1024 * 1024
NOBODY: frozenset[str] = frozenset()
SMALL, LARGE = "ml.g5.2xlarge", "ml.p5.4xlarge"


def adapted(values: dict[str, Any], *by_user: str, on: tuple[str, ...] = (SMALL,)) -> dict[str, Any]:
    return memory_fit.adapt({**UNET, **values}, frozenset(by_user), PIXELS, on)[0]


def test_what_fits_stays_as_it_is() -> None:
    values = {**UNET, "train_batch_size": 4, "gradient_checkpointing": True}
    assert memory_fit.adapt(values, NOBODY, PIXELS, (SMALL,)) == (values, [])
    assert memory_fit.judge(values, PIXELS, SMALL) == []


def test_checkpointing_comes_first_then_smaller_batches_and_as_many_images_make_a_step() -> None:
    assert adapted({"train_batch_size": 4})["gradient_checkpointing"] is True
    found = adapted({"train_batch_size": 64})
    assert found["gradient_checkpointing"] is True
    assert found["train_batch_size"] * found["gradient_accumulation_steps"] == 64
    assert found["train_batch_size"] == 16
    assert adapted({"train_batch_size": 8}, on=(LARGE,)) == {**UNET, "train_batch_size": 8}


def test_the_smallest_gpu_of_the_ladder_decides() -> None:
    assert adapted({"train_batch_size": 8}, on=(LARGE, SMALL))["gradient_checkpointing"] is True


def test_what_the_user_set_stays_and_is_refused_with_what_would_fit() -> None:
    values = {"train_batch_size": 64, "gradient_checkpointing": False}
    assert adapted(values, "train_batch_size", "gradient_checkpointing") == {**UNET, **values}
    (finding,) = memory_fit.judge({**UNET, **values}, PIXELS, SMALL)
    assert finding.code == "gpu-memory-exceeded"
    assert "of the 22 GiB of ml.g5.2xlarge's GPU 19.7 can be used" in finding.message
    assert finding.remedy.startswith("Set gradient_checkpointing = true and train_batch_size = ")
    smaller = {"train_batch_size": 2, "gradient_checkpointing": False}
    (finding,) = memory_fit.judge({**UNET, **smaller}, PIXELS, SMALL)
    assert finding.remedy == "Set gradient_checkpointing = true or name ml.g6e.xlarge."


@pytest.mark.parametrize("rank", range(8, 1032, 64))
def test_a_refusal_never_says_that_there_is_as_much_as_is_needed(rank: int) -> None:
    for batch in range(1, 20):
        values = {**UNET, "network_dim": rank, "train_batch_size": batch, "gradient_checkpointing": True}
        for finding in memory_fit.judge(values, PIXELS, SMALL):
            needs, _, usable = re.findall(r"[0-9]+\.[0-9]+", finding.message)
            assert float(needs) > float(usable)


def test_an_instance_that_is_not_known_is_not_judged() -> None:
    values = {**UNET, "train_batch_size": 4096}
    assert memory_fit.adapt(values, NOBODY, PIXELS, ("ml.x9.large",)) == (values, [])
    assert memory_fit.judge(values, PIXELS, "ml.x9.large") == []


def test_a_rung_that_is_too_small_is_left_out() -> None:
    config = {"train_batch_size": 8, "gradient_checkpointing": False, "max_train_epochs": 2}
    decision = decide(instance_types=[SMALL, LARGE], config=config)
    assert [rung.instance_type for rung in decision.rungs] == [LARGE]
    assert "rung-left-out" in codes(decision, "warning")
    assert codes(decide(instance_types=[SMALL], config=config)) == ["gpu-memory-exceeded"]


@pytest.mark.parametrize("budget", [1.0, 1.5, 2.5])
def test_a_budget_names_the_change_that_would_fit_it(budget: float) -> None:
    files = [file(f"20_x/{n}.jpg") for n in range(30)] + [file(f"20_x/{n}.txt") for n in range(30)]
    config = {"train_batch_size": 4, "max_train_epochs": 10}
    refused = decide(files, config=config, max_cost_usd=budget)
    (finding,) = [one for one in refused.findings if one.code == "budget-exceeded"]
    words = finding.remedy.replace(",", "").split()
    if "max_train_epochs" in words:
        epochs = int(words[words.index("max_train_epochs") + 2])
        assert decide(files, config={**config, "max_train_epochs": epochs}, max_cost_usd=budget).accepted
    if words[0] == "Name":
        assert decide(files, config=config, max_cost_usd=budget, instance_types=[words[1]]).accepted
    wanted = float(words[words.index("raise") + 3])
    assert decide(files, config=config, max_cost_usd=wanted).accepted
