"""The preset's batch grows where every GPU of the ladder has room, never the user's, and everything follows it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from fine_tuning import instances, plan
from fine_tuning.manifest import Manifest
from fine_tuning.plan import Decision
from fine_tuning.report import report
from tests.functions_data import RUN, file
from tests.unit.functions.test_plan import LIMITS, codes
from tests.unit.functions.test_plan import decide as decided

LANDSCAPES = [file(f"20_x/{n}.{kind}", 640, 480) for n in range(10) for kind in ("jpg", "txt")]
FILES = LANDSCAPES + [file(f"20_x/{n}.{kind}") for n in range(10, 31) for kind in ("jpg", "txt")]
KEPT = {"recipe": {"scale_batch": False}}
LARGE = "ml.p5.4xlarge"  # an H100: a step of 8 images takes hardly longer there than one of 4


def decide(*given: Any, **keys: Any) -> Decision:
    return decided(*given, **{"instance_types": [LARGE], **keys})


def config(decision: Decision) -> dict[str, Any]:
    assert decision.config is not None
    return decision.config


def test_plan_steps_buckets_and_quote_are_those_of_the_larger_batch() -> None:
    grown, before = decide(FILES), decide(FILES, **KEPT)
    assert grown.plan is not None
    assert grown.summary is not None
    assert grown.quote is not None
    assert before.quote is not None
    assert config(grown)["train_batch_size"] == 8
    assert grown.plan["recipe"] == {"train_batch_size": 8, "learning_rate": config(grown)["learning_rate"]}
    assert config(grown)["learning_rate"] == pytest.approx(1e-4 * 2**0.75, rel=0.01)
    steps = 10 * (math.ceil(200 / 8) + math.ceil(420 / 8))
    assert (
        grown.plan["total_steps"] == grown.summary["total_steps"] == config(grown)["max_train_steps"] == steps
    )
    assert [bucket["batches"] for bucket in report(grown)["plan"]["buckets"]] == [53, 25]
    assert grown.quote.seconds < before.quote.seconds


SIDES = (512, 1024, 1536)
SINGLE_GPUS = sorted({one.gpu: one.name for one in reversed(instances.known()) if one.gpus == 1}.values())


@pytest.mark.parametrize("preset", ["sdxl-character", "sdxl-style", "sdxl-object"])
@pytest.mark.parametrize("name", SINGLE_GPUS)
def test_wherever_a_batch_grows_the_quote_of_its_steps_shrinks_by_a_tenth(preset: str, name: str) -> None:
    for side, images in itertools.product(SIDES, (12, 40, 100)):
        files = [file(f"10_x/{n}.{kind}", side, side) for n in range(images) for kind in ("jpg", "txt")]
        keys = {"preset": preset, "instance_types": [name], "config": {"resolution": f"{side},{side}"}}
        grown, before = decide(files, **keys), decide(files, **keys, **KEPT)
        if grown.plan is None or before.quote is None or grown.quote is None:
            continue  # too large for this GPU
        of_steps = [quoted.seconds - quoted.fixed_seconds for quoted in (grown.quote, before.quote)]
        if grown.plan["recipe"]:
            assert of_steps[0] <= 0.9 * of_steps[1] + 1, (side, images)
        else:
            assert of_steps[0] == of_steps[1]


@pytest.mark.parametrize(
    ("preset", "side"), [("sdxl-character", 1536), ("sdxl-object", 1536), ("sdxl-style", 1024)]
)
def test_a_batch_that_only_the_trainers_own_unet_would_gain_by_is_not_chosen(preset: str, side: int) -> None:
    files = [file(f"10_x/{n}.{kind}", side, side) for n in range(40) for kind in ("jpg", "txt")]
    grown, before = (
        decide(files, preset=preset, config={"resolution": f"{side},{side}"}, **keys) for keys in ({}, KEPT)
    )
    assert config(grown)["train_batch_size"] == config(before)["train_batch_size"]


def test_what_was_chosen_is_told_with_the_way_back() -> None:
    (told,) = [finding for finding in decide(FILES).findings if finding.code == "recipe-chosen"]
    assert told.severity == "note"
    assert "train_batch_size = 8, not 4" in told.message
    assert "learning_rate = 0.000168, not 0.0001" in told.message
    kept = decide(FILES, **KEPT)
    assert '"recipe": {"scale_batch": false}' in told.remedy
    assert codes(kept, "note") == ["steps-planned"]
    assert config(kept)["train_batch_size"] == 4
    assert config(kept)["learning_rate"] == 1e-4
    assert kept.plan is not None
    assert kept.plan["recipe"] == {}


def test_the_rate_alone_can_be_kept() -> None:
    decision = decide(FILES, recipe={"scale_learning_rate": False})
    assert (config(decision)["train_batch_size"], config(decision)["learning_rate"]) == (8, 1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train_batch_size", 4),
        ("gradient_accumulation_steps", 1),
        ("learning_rate", 1e-4),
        ("unet_lr", 5e-5),
        ("max_train_steps", 2000),
        ("lr_warmup_steps", 10),
        ("optimizer_type", "Lion"),
    ],
)
@pytest.mark.parametrize("in_toml", [False, True])
def test_what_the_user_set_stays_with_the_batch_that_it_was_meant_for(
    name: str, value: Any, in_toml: bool
) -> None:
    written = f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}"
    decision = decide(FILES, written.encode()) if in_toml else decide(FILES, config={name: value})
    assert "recipe-chosen" not in codes(decision, "note")
    values = config(decision)
    assert values[name] == value
    assert values["train_batch_size"] == 4
    assert values["learning_rate"] == 1e-4


def test_epochs_of_the_user_are_kept_with_fewer_steps() -> None:
    decision = decide(FILES, config={"max_train_epochs": 30})
    assert decision.plan is not None
    assert (decision.plan["epochs"], decision.plan["total_steps"]) == (30, 30 * 78)


def test_a_large_dataset_is_not_shown_more_often_because_its_steps_became_fewer() -> None:
    files = [file(f"100_x/{n}.{kind}") for n in range(100) for kind in ("jpg", "txt")]
    grown, before = decide(files), decide(files, **KEPT)
    assert grown.plan is not None
    assert before.plan is not None
    assert grown.plan["epochs"] == before.plan["epochs"] == 1
    assert (grown.plan["total_steps"], before.plan["total_steps"]) == (1250, 2500)


@pytest.mark.parametrize(
    "instance_types",
    [[LARGE, "ml.x9.large"], ["ml.g5.2xlarge", LARGE]],
)
def test_where_a_gpu_is_not_known_or_it_gains_nothing_the_preset_stays(
    instance_types: list[str],
) -> None:
    decision = decide(FILES, instance_types=instance_types)
    assert config(decision)["train_batch_size"] == 4
    assert "recipe-chosen" not in codes(decision, "note")


@pytest.mark.parametrize("preset", ["sdxl-character", "sdxl-style", "sdxl-object"])
def test_each_preset_grows_to_what_the_smallest_gpu_holds_and_its_warm_up_stays_as_many_images_long(
    preset: str,
) -> None:
    ladder = [LARGE, "ml.g5.xlarge"]
    grown, before = (config(decide(FILES, preset=preset, instance_types=ladder, **k)) for k in ({}, KEPT))
    assert (before["train_batch_size"], grown["train_batch_size"]) in ((4, 8), (8, 8))
    images_of_warm_up = [one.get("lr_warmup_steps", 0) * one["train_batch_size"] for one in (grown, before)]
    assert images_of_warm_up[0] == images_of_warm_up[1]


def test_the_recipe_of_the_original_sample_stays_what_it_is() -> None:
    assert config(decide(FILES, preset="sample-2024"))["train_batch_size"] == 1


@pytest.mark.parametrize("kept", [{}, {"train_batch_size": 6, "learning_rate": 1.5e-4}])
def test_a_retry_is_given_the_recipe_of_the_first_run(kept: dict[str, Any]) -> None:
    manifest = Manifest.from_document({"version": 1, "instance_types": [LARGE]})
    decision = plan.plan(RUN, manifest, FILES, None, [], LIMITS, kept)
    assert decision.plan is not None
    assert decision.plan["recipe"] == kept
    assert config(decision)["train_batch_size"] == kept.get("train_batch_size", 4)
    assert config(decision)["learning_rate"] == kept.get("learning_rate", 1e-4)


def planned(decision: Decision) -> str:
    (told,) = [finding.message for finding in decision.findings if finding.code == "steps-planned"]
    return told


def test_fewer_epochs_than_usual_are_explained_by_what_is_true_of_this_batch() -> None:
    files = [file(f"16_x/{n}.{kind}") for n in range(100) for kind in ("jpg", "txt")]
    # 400 steps an epoch at batch 4: ten would make 4,000; 200 at batch 8, of which ten would make 2,000.
    assert "7 epochs were planned, because 10 would exceed 3000 steps: 2800 steps" in planned(
        decide(files, **KEPT)
    )
    assert "7 epochs were planned, as many as with the preset's batch: 1400 steps" in planned(decide(files))
    assert "10 epochs were planned: " in planned(decide(FILES))


def test_epochs_that_exceed_the_target_with_the_larger_batch_too_are_explained_by_it() -> None:
    files = [file(f"100_x/{n}.{kind}") for n in range(200) for kind in ("jpg", "txt")]
    # 5,000 steps an epoch at batch 4, 2,500 at batch 8: one epoch of either.
    assert "1 epoch was planned, because 10 would exceed 3000 steps: 2500 steps" in planned(decide(files))


FOUR, EIGHT = "ml.g6e.12xlarge", "ml.p5.48xlarge"
FEW = [file(f"10_x/{n}.{kind}") for n in range(20) for kind in ("jpg", "txt")]


def test_several_gpus_train_as_many_steps_of_as_many_images_as_one() -> None:
    four, one = decide(FEW, instance_types=[FOUR], **KEPT), decide(FEW, instance_types=["ml.g6e.xlarge"])
    assert four.plan is not None
    assert one.plan is not None
    assert (config(four)["train_batch_size"], config(one)["train_batch_size"]) == (1, 4)
    assert four.plan["total_steps"] == one.plan["total_steps"] == 500
    assert four.quote is not None
    assert four.quote.fixed_seconds < four.quote.seconds < four.quote.fixed_seconds + 501 * 1.2
    (told,) = [finding for finding in four.findings if finding.code == "recipe-chosen"]
    assert (
        "4 GPUs share a step of 4 images; every image is seen as often: train_batch_size = 1, not 4."
        in told.message
    )
    assert codes(four, "warning") == []


def test_eight_gpus_show_twice_the_presets_images_at_a_rate_that_belongs_to_them() -> None:
    decision = decide(FEW, instance_types=[EIGHT])
    assert (config(decision)["train_batch_size"], config(decision)["max_train_steps"]) == (1, 250)
    assert config(decision)["learning_rate"] == pytest.approx(1e-4 * 2**0.75, rel=0.01)
    (told,) = [finding for finding in decision.findings if finding.code == "recipe-chosen"]
    assert "8 GPUs share a step of 8 images, the preset's has 4" in told.message
    assert codes(decision, "warning") == []


@pytest.mark.parametrize(
    ("keys", "said", "remedy"),
    [
        (
            {"config": {"train_batch_size": 4}},
            "steps of 32 images, at the learning rate that was set for 4",
            "fewer",
        ),
        (
            {"config": {"train_batch_size": 16}},
            "steps of 128 images",
            "Set train_batch_size = 2, which is each",
        ),
        (
            {"config": {"learning_rate": 5e-5}},
            "250 steps of 8 images, at the learning rate that was set for 4",
            "",
        ),
        ({"preset": "sample-2024"}, "250 steps of 8 images, at the learning rate that was set for 1.", ""),
        (
            {"config": {"max_train_epochs": 7}},
            "175 steps of 8 images, so few that no run was compared",
            "or set more max_train_epochs.",
        ),
    ],
)
def test_more_images_a_step_than_the_rate_is_for_are_told_with_their_steps(
    keys: dict[str, Any], said: str, remedy: str
) -> None:
    decision = decide(FEW, instance_types=[EIGHT], **keys)
    (told,) = [finding for finding in decision.findings if finding.code == "images-multiplied"]
    assert told.severity == "warning"
    assert said in told.message
    assert remedy in told.remedy


def test_each_number_of_gpus_has_its_own_recipe_and_the_run_is_given_that_of_its_rungs() -> None:
    ladder = [EIGHT, "ml.g5.2xlarge"]
    dear = decide(FEW, instance_types=ladder, max_cost_usd=2)
    assert dear.summary is not None
    assert dear.summary["instance_type"] == "ml.g5.2xlarge"
    assert config(dear) == config(decide(FEW, instance_types=ladder[1:]))
    assert config(decide(FEW, instance_types=ladder)) == config(decide(FEW, instance_types=ladder[:1]))


def test_a_retry_on_several_gpus_trains_with_the_recipe_of_the_first_run() -> None:
    manifest = Manifest.from_document({"version": 1, "instance_types": [FOUR]})
    first = plan.plan(RUN, manifest, FEW, None, [], LIMITS)
    assert first.plan is not None
    again = plan.plan(RUN, manifest, FEW, None, [], LIMITS, first.plan["recipe"])
    assert again.plan == first.plan
    assert config(again) == config(first)
