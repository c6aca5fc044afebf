"""What a run is said to take, and what that rests on."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fine_tuning import instances, own_runs, quote, recipe, speed
from fine_tuning.errors import ConfigurationError
from fine_tuning.instances import Prices
from fine_tuning.own_runs import Correction
from fine_tuning.quote import Quote
from fine_tuning.settings import Settings

UNET = {"network_train_unet_only": True}
SQUARE = (1024, 1024)
SPEED = json.loads(Path(recipe.__file__).with_name("speed.json").read_bytes())


def quoted(
    name: str = "ml.g5.8xlarge", steps: int = 1000, config: dict[str, Any] | None = None, **more: Any
) -> Quote:
    return quote.quote(name, steps, 10, SQUARE, {"train_batch_size": 4, **UNET, **(config or {})}, **more)


@pytest.mark.parametrize("name", ["prices.json", "speed.json"])
def test_no_figure_is_given_twice(name: str) -> None:
    """Of a repeated key, such as an instance type, Python's reader takes the last without a word."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), sorted(key for key, _ in pairs)
        return dict(pairs)

    json.loads(Path(recipe.__file__).with_name(name).read_bytes(), object_pairs_hook=once)


def test_the_gpu_of_every_instance_type_is_one_that_speeds_are_known_of() -> None:
    assert {instance.gpu for instance in instances.known()} <= set(SPEED["gpus"])


@pytest.mark.parametrize("row", SPEED["whole_trainer_plain"]["measured"], ids=str)
def test_whole_runs_with_the_trainers_own_unet_are_quoted_as_they_took(row: dict[str, Any]) -> None:
    config = {"train_batch_size": row["batch"], "gradient_checkpointing": row["again"] == 1.0}
    found = quoted("ml.p5.4xlarge", config=config, by_user=frozenset({"gradient_checkpointing"}))
    assert found.seconds_per_step == pytest.approx(row["seconds_per_step"], rel=0.07)


@pytest.mark.parametrize(
    ("name", "batch", "checkpointing"),
    [
        ("ml.p5.4xlarge", 4, False),
        ("ml.p5.4xlarge", 8, False),
        ("ml.p5.4xlarge", 12, True),
        ("ml.g6e.2xlarge", 4, False),
        ("ml.g6e.2xlarge", 8, True),
        ("ml.g5.8xlarge", 4, True),
    ],
)
def test_checkpointing_is_quoted_where_the_container_will_need_it(
    name: str, batch: int, checkpointing: bool
) -> None:
    """Whatever the preset says, as kohya_trainer/execution.py chooses; what the user says is kept there."""
    instance = instances.find(name)
    assert instance is not None
    options = {**FAST, **UNET, "train_batch_size": batch}
    needed = recipe.computed_again(options, batch, 2**20, instance.memory_gib, "plain")
    assert needed == float(checkpointing)
    as_preset, as_wished = (
        quoted(name, config={**options, "gradient_checkpointing": said}, by_user=by_user).seconds
        for said, by_user in (
            (not checkpointing, frozenset[str]()),
            (checkpointing, frozenset({"gradient_checkpointing"})),
        )
    )
    assert as_preset == as_wished


FAST = {
    "train_batch_size": 16,
    "network_dim": 32,
    "cache_text_encoder_outputs": True,
    "mixed_precision": "bf16",
}


def fast_or_not(name: str, corrections: Any = None, **config: Any) -> Quote:
    config = {**FAST, "gradient_checkpointing": True, **config}
    return quoted(name, config=config, kohya_version="v25.2.2", corrections=corrections)


WHOLE = SPEED["whole_trainer_measured"]
GRAPHS, NO_GRAPHS = "fast, CUDA graphs", "fast, no CUDA graphs"


@pytest.mark.parametrize(
    "row",
    [row for row in WHOLE if row["execution"] == GRAPHS],
    ids=lambda row: f"{row['gpu']}-{row['again']}",
)
def test_the_fast_unets_table_is_within_a_tenth_of_the_whole_trainer_with_graphs(row: dict[str, Any]) -> None:
    seconds = recipe.seconds_per_step(row["batch"], 2**20, row["again"], row["gpu"], "fast")
    assert seconds == pytest.approx(row["seconds_per_step"], rel=0.1)


def test_the_fast_unet_is_quoted_as_the_whole_trainer_took_without_graphs() -> None:
    """The one run of the kind; the figure that is quoted was made from it."""
    (row,) = [row for row in WHOLE if row["execution"] == NO_GRAPHS]
    assert len(WHOLE) == 1 + sum(row["execution"] == GRAPHS for row in WHOLE)
    assert row["gpu"] == "H100"
    assert fast_or_not("ml.p5.4xlarge").seconds_per_step == pytest.approx(row["seconds_per_step"], rel=0.01)


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_no_step_is_quoted_faster_than_its_kernels_are_launched(batch: int) -> None:
    for name in ("ml.p5.4xlarge", "ml.p5en.48xlarge"):
        assert fast_or_not(name, train_batch_size=batch).seconds_per_step >= 0.45


def test_graphs_are_left_out_of_the_quote_because_the_image_records_none() -> None:
    container = Path(__file__).parents[3] / "container"
    pinned = (container / f"requirements/kohya_ss-{speed.FAST_VERSION}.in").read_text(encoding="utf-8")
    source = (container / "kohya_trainer/acceleration/trainer.py").read_text(encoding="utf-8")
    torch, since = re.search(r"^torch==(\d+)\.(\d+)", pinned, re.M), re.search(r"GRAPHS_SINCE = (.+)", source)
    assert torch is not None
    assert since is not None
    assert (int(torch[1]), int(torch[2])) < ast.literal_eval(since[1])


@pytest.mark.parametrize("name", ["ml.p5.4xlarge", "ml.p5en.48xlarge"])
def test_where_the_fast_unet_was_measured_it_is_expected_and_the_trainers_own_is_the_bound(name: str) -> None:
    found = fast_or_not(name)
    own = quoted(name, config={**FAST, "gradient_checkpointing": True})
    assert own.own_seconds == own.seconds
    assert found.seconds < 0.7 * own.seconds
    assert (found.own_seconds, found.most_seconds) == (own.seconds, own.most_seconds)
    assert found.most_usd == own.most_usd
    assert quote.max_runtime_seconds(found, 86400, None) == quote.max_runtime_seconds(own, 86400, None)
    assert f"the trainer's own takes {own.seconds} s" in found.assumed[1]


def test_no_budget_pays_for_more_steps_than_the_trainers_own_unet_makes() -> None:
    own = quoted("ml.p5.4xlarge", config={**FAST, "gradient_checkpointing": True})
    assert fast_or_not("ml.p5.4xlarge").steps_for(2.0) == own.steps_for(2.0) > 0


@pytest.mark.parametrize(
    "config",
    [
        {"network_train_unet_only": False},
        {"network_module": "networks.lora_fa"},
        {"network_args": ["conv_dim=8"]},
        {"network_dropout": 0.1},
        {"xformers": True},
        {"fp8_base": True},
        {"mixed_precision": "no"},
    ],
    ids=str,
)
def test_a_recipe_that_the_fast_unet_refuses_is_quoted_as_the_trainers_own(config: dict[str, Any]) -> None:
    found = fast_or_not("ml.p5.4xlarge", **config)
    assert found.seconds == found.own_seconds


def test_what_was_never_timed_is_quoted_as_the_trainers_own() -> None:
    for found in (
        fast_or_not("ml.g5.8xlarge"),
        fast_or_not("ml.x9.large"),
        quoted("ml.p5.4xlarge", config=FAST, kohya_version="v22.6.2"),
    ):
        assert found.seconds == found.own_seconds


def test_checkpointing_that_the_user_asked_for_is_quoted() -> None:
    config = {**FAST, "gradient_checkpointing": True}
    kept = quoted(
        "ml.p5en.48xlarge",
        config=config,
        kohya_version="v25.2.2",
        by_user=frozenset({"gradient_checkpointing"}),
    )
    # 16 images of all blocks computed again, of none: 1.743 / 2 and 0.967 × 2 / 3, and what it waits for.
    assert kept.seconds_per_step == pytest.approx(0.8715 + 0.141, rel=0.01)
    assert fast_or_not("ml.p5en.48xlarge").seconds_per_step == pytest.approx(0.6447 + 0.141, rel=0.01)


def test_a_slower_gpu_takes_longer_and_less_work_less() -> None:
    slow = quoted()
    assert quoted("ml.p5.4xlarge").seconds < slow.seconds
    assert (
        quote.quote("ml.g5.8xlarge", 1000, 10, (512, 512), {"train_batch_size": 4, **UNET}).seconds
        < slow.seconds
    )
    assert quoted(steps=10).seconds < slow.seconds
    assert quoted(config={"network_train_unet_only": False}).seconds > slow.seconds
    twice = quoted(config={"gradient_accumulation_steps": 2})
    assert twice.seconds_per_step == pytest.approx(2 * slow.seconds_per_step, rel=0.01)


def test_it_says_what_it_rests_on_and_how_far_it_may_be_off() -> None:
    found = quoted()
    assert found.least_seconds < found.seconds < found.most_seconds
    assert found.assumed[0].startswith("Speed: scaled to A10G from what was measured on H100: the trainer's ")
    assert "3.06 USD an hour on demand (us-east-1, 2026-09, recalled, not looked up)" in found.assumed[1]
    measured = quoted("ml.p5.4xlarge", config=MEASURED)
    assert measured.assumed[0] == "Speed: measured on H100."
    assert measured.most_seconds / measured.seconds < found.most_seconds / found.seconds
    unknown = quoted("ml.x9.large")
    assert unknown.cost_usd is unknown.spot_cost_usd is None
    assert "not in the table" in unknown.assumed[0]


MEASURED = {
    "train_batch_size": 8,
    "network_dim": 32,
    "mixed_precision": "bf16",
    "cache_text_encoder_outputs": True,
}
CHECKPOINTING = {**MEASURED, "gradient_checkpointing": True}
ASKED = frozenset({"gradient_checkpointing"})


@pytest.mark.parametrize(
    "config", [MEASURED, *({**CHECKPOINTING, "train_batch_size": batch} for batch in (4, 12))], ids=str
)
def test_measured_is_said_of_what_lies_between_measured_batches(config: dict[str, Any]) -> None:
    found = quoted("ml.p5.4xlarge", config=config, by_user=ASKED)
    assert found.assumed[0] == "Speed: measured on H100."
    assert found.most_seconds == pytest.approx(1.3 * found.seconds, rel=0.01)


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({"train_batch_size": 1}, "batch 1 from others"),
        ({**CHECKPOINTING, "train_batch_size": 3}, "batch 3 from others"),
        ({**CHECKPOINTING, "train_batch_size": 16}, "batch 16 from others"),
        ({"resolution": (2048, 2048)}, "work with the image's area"),
        ({"resolution": (512, 512)}, "work with the image's area"),
        ({"network_train_unet_only": False}, "times 2.5 with text encoders"),
        ({"network_dim": 256}, "as rank 32"),
        ({"network_module": "networks.lora_fa"}, "as rank 32"),
        ({"optimizer_type": "Adafactor"}, "AdamW"),
        ({"mixed_precision": "fp16"}, "bf16"),
        ({"gradient_accumulation_steps": 2}, "times 2 batches of a step"),
        (
            {"instance": "ml.p5en.48xlarge"},
            "to H200 from what was measured on H100: the trainer's own time as there.",
        ),
        ({"instance": "ml.g5.8xlarge"}, "an image's work with arithmetic (55 %) and memory bandwidth (45 %)"),
    ],
    ids=str,
)
def test_what_was_not_measured_names_the_rule_that_it_was_scaled_with(
    config: dict[str, Any], rule: str
) -> None:
    options = {**UNET, **MEASURED, **config}
    resolution, name = options.pop("resolution", SQUARE), options.pop("instance", "ml.p5.4xlarge")
    found = quote.quote(name, 1000, 10, resolution, options, by_user=ASKED)
    assert found.assumed[0].startswith("Speed: scaled ")
    assert rule in found.assumed[0]
    assert found.most_seconds == pytest.approx(1.8 * found.seconds, rel=0.01)


def test_the_cost_is_time_times_price_and_spot_stands_beside_it() -> None:
    found = quoted()
    assert found.cost_usd == pytest.approx(found.seconds / 3600 * 3.06, abs=0.01)
    assert found.spot_cost_usd == pytest.approx(found.seconds / 3600 * 1.53, abs=0.01)
    own = quoted(prices=Prices({"ml.g5.8xlarge": 1.0, "ml.g5.8xlarge/spot": 0.25}))
    assert own.cost_usd == pytest.approx(own.seconds / 3600, abs=0.01)
    assert own.spot_cost_usd == pytest.approx(own.seconds / 3600 * 0.25, abs=0.01)
    assert "the stack's own price" in own.assumed[1]
    assert quoted("ml.x9.large", prices=Prices({"ml.x9.large": 2.0})).cost_usd is not None


def test_the_larger_a100_is_its_own_gpu() -> None:
    larger, smaller = instances.find("ml.p4de.24xlarge"), instances.find("ml.p4d.24xlarge")
    assert larger is not None
    assert smaller is not None
    assert (larger.gpus, larger.memory_gib > 75, smaller.memory_gib < 40) == (8, True, True)
    found = quoted("ml.p4de.24xlarge", config=MEASURED)
    assert found.seconds < quoted("ml.p4d.24xlarge", config=MEASURED).seconds
    assert found.assumed[0].startswith("Speed: scaled to A100 80GB from what was measured on H100: ")


def test_every_instance_of_the_table_is_of_a_known_gpu() -> None:
    assert all(one.memory_gib > 15 and one.gpus >= 1 for one in instances.known())
    assert {one.name for one in instances.known()} >= {"ml.g5.8xlarge", "ml.g6.2xlarge", "ml.p4d.24xlarge"}


@pytest.mark.parametrize(
    "text",
    ["{", '{"ml.a.b":3}', "ml.a.b", "ml.a.b=x", "ml.a.b=0", "ml.a.b=1e999", "ml.a.b=1,", "=1", "ml.a.b=1=2"],
)
def test_prices_that_are_none_are_the_deployments_mistake(text: str) -> None:
    with pytest.raises(ConfigurationError, match="PricesUsdPerHour"):
        _ = Settings({"PRICES_USD_PER_HOUR": text}).prices


def test_a_stack_without_prices_takes_the_tables() -> None:
    assert Settings({"PRICES_USD_PER_HOUR": ""}).prices == Prices()


def test_a_stacks_prices_are_those_of_the_types_that_it_names() -> None:
    own = Settings({"PRICES_USD_PER_HOUR": "ml.a.b=2,ml.a.b/spot=0.5"}).prices
    assert (own.on_demand("ml.a.b"), own.spot("ml.a.b")) == (2.0, 0.5)
    assert own.on_demand("ml.g5.8xlarge") == Prices().on_demand("ml.g5.8xlarge")


def completed(actual: float, instance: str = "ml.g5.8xlarge", **other: Any) -> dict[str, Any]:
    plan = {"instance_type": instance, "table_seconds": 1000, "estimated_seconds": 7, "execution": "plain"}
    return {"status": "COMPLETED", "plan": plan, "observation": {"seconds": actual}, **other}


def test_three_finished_runs_of_the_account_correct_the_quote_of_their_gpu() -> None:
    found = own_runs.corrections([completed(700), completed(900), completed(800, "ml.g5.2xlarge")])
    assert found == {("A10G", "plain"): Correction(0.8, 3, pytest.approx(0.85), pytest.approx(1.15))}
    plain, corrected = quoted(), quoted(corrections=found)
    assert corrected.seconds == pytest.approx(plain.seconds * 0.8, rel=0.01)
    assert corrected.table_seconds == plain.table_seconds == plain.seconds
    assert corrected.most_seconds == pytest.approx(corrected.seconds * 1.15, rel=0.01)
    assert corrected.assumed[0].endswith("times 0.80 after 3 finished runs of this account on A10G.")
    assert quoted("ml.p5.4xlarge", corrections=found) == quoted("ml.p5.4xlarge")


def quoted_as(execution: str, actual: float, instance: str = "ml.p5.4xlarge") -> dict[str, Any]:
    record = completed(actual, instance)
    return {**record, "plan": {**record["plan"], "execution": execution}}


def test_what_runs_quoted_with_the_fast_unet_took_corrects_its_figure_alone() -> None:
    """Refused three times, it takes as long as the trainer's own; the trainer's own takes no longer for that."""
    refused = own_runs.corrections([quoted_as("fast", 1600)] * 3)
    plain = fast_or_not("ml.p5.4xlarge")
    found = fast_or_not("ml.p5.4xlarge", corrections=refused)
    assert found.seconds == pytest.approx(1.6 * plain.seconds, rel=0.01)
    assert found.own_seconds == plain.own_seconds
    assert found.assumed[0].endswith(
        "times 1.60 after 3 finished runs of this account on H100, quoted with the fast U-Net."
    )
    never_fast = fast_or_not("ml.p5.4xlarge", xformers=True, corrections=refused)
    assert never_fast == fast_or_not("ml.p5.4xlarge", xformers=True)


def test_the_trainers_own_is_corrected_by_runs_that_were_quoted_with_it() -> None:
    slow = own_runs.corrections([quoted_as("plain", 1500)] * 3)
    before, found = (fast_or_not("ml.p5.4xlarge", corrections=known) for known in (None, slow))
    assert (found.seconds, found.table_seconds) == (before.seconds, before.table_seconds)
    assert found.own_seconds == pytest.approx(1.5 * before.own_seconds, rel=0.01)
    assert found.fixed_seconds == pytest.approx(1.5 * before.fixed_seconds, rel=0.01)
    assert found.steps_for(2.0) < before.steps_for(2.0)


def test_no_budget_is_held_against_less_than_what_is_expected() -> None:
    quick = own_runs.corrections([quoted_as("plain", 200)] * 3 + [quoted_as("fast", 1900)] * 3)
    found = fast_or_not("ml.p5.4xlarge", corrections=quick)
    assert found.own_seconds == found.seconds
    assert found.own_seconds_per_step == found.seconds_per_step
    assert found.most_seconds >= found.seconds


def test_runs_that_were_quoted_otherwise_are_not_counted_together() -> None:
    mixed = own_runs.corrections([quoted_as("fast", 800)] * 2 + [quoted_as("plain", 800)] * 2)
    assert mixed == {}


@pytest.mark.parametrize(
    "third",
    [
        completed(800, "ml.p5.4xlarge"),
        completed(800, "ml.x9.large"),
        completed(800, rehearsal=True),
        completed(800, retries="cats-0123456789ab"),
        completed(800, attempts=[{"status": "Failed"}]),
        {**completed(800), "observation": {"seconds": 800, "spot": True}},
        {**completed(800), "plan": {**completed(800)["plan"], "spot": True}},
        {**completed(800), "status": "STOPPED"},
        completed(50),
        completed(20_000),
        {**completed(800), "plan": {"instance_type": "ml.g5.8xlarge"}},
        {**completed(800), "observation": {"seconds": None}},
        {**completed(800), "observation": {"seconds": 800, "step": 250, "total": 1000}},
        completed(800, latents={"images": 3000, "of": 3000, "runs": ["cats-0123456789ab"]}),
        {"status": "COMPLETED"},
    ],
)
def test_what_is_no_comparable_run_corrects_nothing(third: dict[str, Any]) -> None:
    assert ("A10G", "plain") not in own_runs.corrections([completed(700), completed(900), third])


def test_a_run_whose_last_lines_were_not_measured_and_that_found_no_latents_counts() -> None:
    whole = {**completed(800), "observation": {"seconds": 800, "step": 990, "total": 1000}}
    assert ("A10G", "plain") in own_runs.corrections([{**whole, "latents": {"images": 0}}] * 3)


def test_the_longest_runtime_is_twice_the_quote_and_half_an_hour() -> None:
    assert quote.max_runtime_seconds(of_seconds(1000), 86400, None) == 3800
    assert quote.max_runtime_seconds(of_seconds(80000), 86400, None) == 86400


def of_seconds(seconds: int, usd_per_hour: float | None = 3.06) -> Quote:
    return Quote("ml.g5.8xlarge", "plain", 1, 0, 0, 0, 0, 0, seconds, 1.0, 1.0, None, None, usd_per_hour, ())


@pytest.mark.parametrize("budget", [0.5, 1.0, 2.99])
def test_the_longest_runtime_is_paid_for_by_the_budget(budget: float) -> None:
    seconds = quote.max_runtime_seconds(of_seconds(1000), 86400, budget)
    assert seconds / 3600 * 3.06 <= budget < (seconds + 1) / 3600 * 3.06


def test_a_large_budget_or_an_unknown_price_limits_nothing() -> None:
    assert quote.max_runtime_seconds(of_seconds(1000), 86400, 1000) == 3800
    assert quote.max_runtime_seconds(of_seconds(1000, usd_per_hour=None), 86400, 1.0) == 3800


def test_the_steps_that_a_budget_pays_for_are_quoted_within_it() -> None:
    steps = quoted().steps_for(2.0)
    within, above = quoted(steps=steps), quoted(steps=steps + 2)
    assert within.cost_usd is not None
    assert above.cost_usd is not None
    assert within.cost_usd <= 2.0 < above.cost_usd + 0.005
    assert quoted().steps_for(0.01) == 0
