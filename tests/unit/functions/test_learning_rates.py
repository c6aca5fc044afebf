"""Learning rates and warm-ups that can only waste a run."""

from __future__ import annotations

from typing import Any

import pytest

from fine_tuning import configuration, plan
from fine_tuning.findings import Finding
from fine_tuning.limits import Limits
from fine_tuning.manifest import Manifest
from tests.functions_data import RUN, file

TOML = "kohya-sdxl-config.toml"
ADAFACTOR = {"optimizer_type": "Adafactor", "optimizer_args": ["relative_step=False"]}
ITS_OWN = {"optimizer_type": "Adafactor", "optimizer_args": ["relative_step=True"]}
FILES = [file("10_x/a.jpg"), file("10_x/a.txt")]


def found(config: dict[str, Any], version: str = "v25.2.2") -> list[Finding]:
    manifest = Manifest.from_document({"version": 1, "config": config})
    return list(configuration.resolve(manifest, None, version).findings)


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(one.severity, one.code) for one in findings if one.severity != "note"]


def planned(config: dict[str, Any], toml: bytes | None = None, **keys: Any) -> list[Finding]:
    manifest = Manifest.from_document({"version": 1, "config": config, **keys})
    limits = Limits("v25.2.2", ("ml.g5.8xlarge",), 50, 86400, None)
    return list(plan.plan(RUN, manifest, FILES, toml, [], limits).findings)


@pytest.mark.parametrize(
    ("config", "figures"),
    [
        ({"learning_rate": 1.0}, "is 1 with AdamW,"),
        ({"learning_rate": 100}, "is 100 with AdamW,"),
        ({"learning_rate": 1.0, "optimizer_type": "AdamW8bit"}, "is 1 with AdamW8bit"),
        ({"learning_rate": 0.01, "optimizer_type": "PagedLion8bit"}, "is 0.01 with PagedLion8bit"),
        ({"learning_rate": 1.0, "use_8bit_adam": True}, "is 1 with adamw8bit"),
        ({"unet_lr": 0.05}, "is 0.05 with"),
        ({"text_encoder_lr": 0.5, "network_train_unet_only": False}, "is 0.5 with"),
        ({**ADAFACTOR, "learning_rate": 0.1}, "is 0.1 with Adafactor"),
        ({"optimizer_type": "AdamWScheduleFree", "learning_rate": 1.0}, "is 1 with AdamWScheduleFree"),
    ],
    ids=str,
)
def test_a_rate_that_no_lora_is_trained_with_is_told(config: dict[str, Any], figures: str) -> None:
    told = [one for one in found(config) if one.code == "options-harmful"]
    assert [one.severity for one in told] == ["warning"]
    assert figures in told[0].message


@pytest.mark.parametrize(
    "config",
    [
        {"learning_rate": 5e-3},
        {"optimizer_type": "Prodigy", "learning_rate": 1.0},
        {"optimizer_type": "DAdaptAdam", "learning_rate": 1.0},
        {"optimizer_type": "SGDNesterov", "learning_rate": 1.0},
        {"optimizer_type": "AdamWScheduleFree", "learning_rate": 0.025},
        {**ADAFACTOR, "learning_rate": 0.02},
        {**ITS_OWN, "learning_rate": 1.0},
        {"text_encoder_lr": 0, "network_train_unet_only": False},
        {"unet_lr": 0, "network_train_unet_only": False},
    ],
    ids=str,
)
def test_a_rate_that_somebody_may_mean_is_not(config: dict[str, Any]) -> None:
    assert codes(found(config)) == []


@pytest.mark.parametrize(
    "config",
    [
        {"learning_rate": 0},
        {"unet_lr": 0},
        {"unet_lr": 0, "text_encoder_lr": 0, "network_train_unet_only": False},
        {"text_encoder_lr": 0, "network_train_unet_only": False, "network_train_text_encoder_only": True},
        {**ITS_OWN, "learning_rate": 0},
    ],
    ids=str,
)
def test_rates_of_0_train_nothing(config: dict[str, Any]) -> None:
    assert ("error", "option-invalid") in codes(found(config))


def test_adafactors_own_rate_replaces_0_where_the_trainer_keeps_weights_of_no_rate() -> None:
    assert codes(found({**ITS_OWN, "learning_rate": 0}, "v22.6.2")) == []
    assert codes(found({**ITS_OWN, "learning_rate": 0, "network_module": "networks.lora_fa"})) == []


def test_a_warm_up_that_outlasts_the_training_is_told_with_what_the_rate_comes_to() -> None:
    (told,) = [
        one
        for one in planned({"lr_warmup_steps": 100_000, "max_train_steps": 60})
        if one.code == "options-harmful"
    ]
    assert (told.severity, told.path) == ("warning", "manifest.json")
    assert "100000" in told.message
    assert "ends after 60" in told.message
    assert "0.06 %" in told.message
    of_toml = planned({"max_train_steps": 60}, b"lr_warmup_steps = 60")
    assert [(one.severity, one.path) for one in of_toml if one.code == "options-harmful"] == [
        ("warning", TOML)
    ]
    # The preset's own is 50 steps.
    of_preset = planned({"max_train_steps": 40}, preset="sdxl-object")
    assert [one.code for one in of_preset if one.severity == "warning"] == ["options-harmful"]


@pytest.mark.parametrize(
    "config",
    [
        {"lr_warmup_steps": 59},
        {"lr_warmup_steps": 0.5},
        {"lr_warmup_steps": 0},
        {"lr_warmup_steps": 1000, "optimizer_type": "AdamWScheduleFree"},
        {"lr_warmup_steps": 1000, "lr_scheduler": "constant"},
    ],
    ids=str,
)
def test_a_warm_up_that_ends_or_is_not_read_is_not_called_harmful(config: dict[str, Any]) -> None:
    assert "options-harmful" not in [one.code for one in planned({"max_train_steps": 60, **config})]


def test_several_gpus_move_the_schedule_on_as_often() -> None:
    def harmful(warm_up: int) -> bool:
        config = {"lr_warmup_steps": warm_up, "max_train_steps": 60}
        told = planned(config, instance_types=["ml.g5.12xlarge"])
        return "options-harmful" in [one.code for one in told]

    assert not harmful(239)
    assert harmful(240)
