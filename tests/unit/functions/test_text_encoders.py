"""Whether the text encoders are trained: what says so, and which source is heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.resolving import resolve, told

DATA = Path(__file__).with_name("data")


def test_what_the_graphical_interface_trains_is_trained() -> None:
    """Its preset "SDXL - LoRA AI_characters standard v1.1", as lora_gui.py of v25.2.2 maps it: that both are to be
    trained is said by naming neither network_train_unet_only nor network_train_text_encoder_only.
    """
    resolved = resolve(toml=(DATA / "gui-v25.2.2-text-encoders.toml").read_text(encoding="utf-8"))
    warned = {finding.message.split()[2] for finding in resolved.findings if finding.severity != "note"}
    assert warned == {"epoch", "lr_scheduler_num_cycles", "noise_offset_type"}
    of_encoders = {name: value for name, value in resolved.values.items() if "text_encoder" in name}
    assert of_encoders == {"text_encoder_lr": [3e-5], "cache_text_encoder_outputs": False}
    assert "network_train_unet_only" not in resolved.values


@pytest.mark.parametrize("config", [{"learning_rate": 2e-4}, {"text_encoder_lr": 0}])
def test_a_manifest_that_replaces_the_tomls_rate_leaves_the_text_encoders_as_the_preset_does(
    config: dict[str, Any],
) -> None:
    values = resolve(config, "unet_lr = 1e-4\ntext_encoder_lr = 1e-5").values
    assert (values["network_train_unet_only"], values["cache_text_encoder_outputs"]) == (True, True)


@pytest.mark.parametrize("option", ["text_encoder_lr = 5e-5", "network_train_text_encoder_only = true"])
@pytest.mark.parametrize("preset", ["sdxl-character", "sdxl-object", "sdxl-style"])
def test_the_presets_u_net_alone_gives_way_to_a_user_who_trains_the_text_encoders(
    option: str, preset: str
) -> None:
    resolved = resolve(toml=option, preset=preset)
    assert resolved.findings == ()
    assert "network_train_unet_only" not in resolved.values
    assert resolved.values["cache_text_encoder_outputs"] is False


@pytest.mark.parametrize(
    "config", [{"text_encoder_lr": 0}, {"text_encoder_lr": [0.0, 1e-5]}, {"learning_rate": 1e-4}]
)
def test_who_names_no_rate_for_the_text_encoders_leaves_them_as_the_preset_does(
    config: dict[str, Any],
) -> None:
    values = resolve(config).values
    assert (values["network_train_unet_only"], values["cache_text_encoder_outputs"]) == (True, True)


def test_the_manifest_decides_which_part_a_toml_trains() -> None:
    values = resolve({"network_train_unet_only": True}, "network_train_text_encoder_only = true").values
    assert values["network_train_unet_only"] is True
    assert "network_train_text_encoder_only" not in values
    both = resolve({"text_encoder_lr": 5e-5}, "network_train_unet_only = true").values
    assert "network_train_unet_only" not in both


def test_captions_that_the_user_caches_cannot_be_trained() -> None:
    resolved = resolve({"text_encoder_lr": 5e-5, "cache_text_encoder_outputs": True})
    assert told(resolved) == [("error", "options-contradict", "manifest.json")]
    assert "network_train_unet_only is not set" in resolved.findings[0].message
