"""What of a configuration reaches the trainer, what is left out and what is refused."""

import json
from typing import Any

import pytest

from kohya_trainer.checked_options import FORBIDDEN, checked_options
from kohya_trainer.command import TRAINER
from kohya_trainer.errors import InvalidConfigurationError
from kohya_trainer.options import TABLES, load_table

VERSIONS = ["v22.6.2", "v25.2.2"]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("learning_rat", 1e-4, "learning_rat is not an option"),
        ("learning_rate", "1e-4", "not of type float"),
        ("network_dim", 32.0, "not of type int"),
        ("cache_latents", 1, "not of type flag"),
        ("seed", True, "not of type int"),
        ("mixed_precision", "fp8", "is not one of no, fp16, bf16"),
        ("max_token_length", 75, "is not one of None, 150, 225"),
        ("network_args", [1], "not of type str"),
    ],
)
def test_a_planned_option_that_the_parser_would_refuse_is_refused(
    option: str, value: Any, words: str
) -> None:
    with pytest.raises(InvalidConfigurationError, match=words):
        checked_options({option: value}, load_table("v25.2.2"), older_layout=False)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"optimizer_args": ["weight_decy=1"]}, "AdamW takes no weight_decy in optimizer_args, but amsgrad"),
        ({"optimizer_type": "prodigy", "optimizer_args": ["lr=1"]}, "Prodigy takes no lr"),
        ({"use_8bit_adam": True, "optimizer_args": ["fused=True"]}, "AdamW8bit takes no fused"),
        ({"lr_scheduler": "cosine", "lr_scheduler_args": ["cycles=1"]}, "cosine takes no cycles"),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_an_argument_that_would_stop_the_trainer_is_refused_before_it_starts(
    config: dict[str, Any], words: str, version: str
) -> None:
    with pytest.raises(InvalidConfigurationError, match=words):
        checked_options(config, load_table(version), older_layout=True)


@pytest.mark.parametrize(
    "config",
    [
        {"optimizer_args": ["betas=(0.9, 0.99)"]},
        {"optimizer_type": "somebody.elses.Optimizer", "optimizer_args": ["anything=1"]},
        {"optimizer_type": "adafactor", "lr_scheduler_args": ["anything=1"]},
        {"lr_scheduler_type": "StepLR", "lr_scheduler_args": ["step_size=5"]},
    ],
)
def test_an_argument_of_what_no_table_knows_is_left_to_the_trainer(config: dict[str, Any]) -> None:
    assert checked_options(config, load_table("v25.2.2"), older_layout=True) == (config, [])


def test_options_that_reach_further_than_training_are_left_out() -> None:
    config = {
        "seed": 1,
        "huggingface_repo_id": "a/b",
        "wandb_api_key": "secret",
        "save_state_to_huggingface": True,
    }

    options, notes = checked_options(config, load_table("v25.2.2"), older_layout=False)

    assert options == {"seed": 1}
    assert len(notes) == 3
    assert "secret" not in " ".join(notes)


def test_no_cache_of_a_folder_mixes_up_what_is_validated_with() -> None:
    options, notes = checked_options(
        {"seed": 1, "cache_info": True}, load_table("v25.2.2"), older_layout=True
    )

    assert options == {"seed": 1}
    assert "cache_info" in notes[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_forbidden_option_is_one_that_kohya_has(version: str) -> None:
    known = load_table("v25.2.2")

    assert all(name in known for name in FORBIDDEN)
    assert json.loads((TABLES / f"kohya_ss-{version}.json").read_bytes())["trainer"] == TRAINER


@pytest.mark.parametrize("version", VERSIONS)
def test_a_network_that_would_lose_a_text_encoder_is_refused_before_it_is_trained(version: str) -> None:
    config = {"network_module": "networks.dylora", "network_dim": 8}

    with pytest.raises(InvalidConfigurationError, match="same names") as refused:
        checked_options(config, load_table(version), older_layout=True)
    assert "network_train_unet_only" in refused.value.remedy
    alone = {**config, "network_train_unet_only": True}
    assert checked_options(alone, load_table(version), older_layout=True) == (alone, [])
