"""The options that the trainer is started with, and the TOML that it reads them from."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import toml

from kohya_trainer.errors import UnsupportedKohyaVersionError
from kohya_trainer.final_options import TrainerPaths, final_options
from kohya_trainer.options import OptionTable, load_table
from kohya_trainer.resume import ResumePoint, can_resume
from kohya_trainer.toml_text import to_toml

VERSIONS = ["v22.6.2", "v25.2.2"]
PATHS = TrainerPaths(
    training=Path("/work/train"),
    regularization=Path("/work/reg"),
    output=Path("/work/output"),
    logs=Path("/work/logs"),
    prompts=Path("/work/prompts.txt"),
    tokenizers=Path("/tokenizers"),
)
OPTIONS = {"network_module": "networks.lora", "network_dim": 32, "mixed_precision": "bf16", "seed": 1}
POINT = ResumePoint(state=Path("/slot/state"), done=25, initial_step=25, counter_start=5, skip=True)


def final(table: OptionTable, resume: ResumePoint | None = None, hooked: bool = False) -> dict[str, Any]:
    return final_options(OPTIONS, table, PATHS, "cats", 20, 120, resume, hooked)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_option_that_a_run_sets_exists_in_the_version_and_has_its_type(version: str) -> None:
    table = load_table(version)
    resume = POINT if can_resume(table) else None

    for hooked in (False, True):
        assert table.problems(final(table, resume, hooked)) == []


def test_a_version_that_counts_wrongly_after_a_restart_is_never_told_to_resume() -> None:
    old = load_table("v22.6.2")

    assert not can_resume(old)
    with pytest.raises(UnsupportedKohyaVersionError, match="initial_step"):
        final(old, POINT)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({}, None),
        ({"save_every_n_epochs": 1}, 1),
        ({"save_n_epoch_ratio": 3}, 1),
        ({"save_every_n_epochs": 1, "save_last_n_epochs_state": 2}, 2),
    ],
)
def test_states_of_epochs_which_nobody_goes_on_from_do_not_fill_the_disk(
    asked: dict[str, int], kept: int | None
) -> None:
    old = load_table("v22.6.2")

    result = final_options({**OPTIONS, **asked}, old, PATHS, "cats", 20, None, None, hooked=False)

    assert result.get("save_last_n_epochs_state") == kept
    assert old.problems(result) == []


def test_paths_of_the_configuration_never_win_over_the_run() -> None:
    options = {
        **OPTIONS,
        "output_dir": "/etc",
        "train_data_dir": "/",
        "resume": "/else",
        "sample_prompts": "/etc/passwd",
    }

    result = final_options(options, load_table("v25.2.2"), PATHS, "cats", 20, None, None, hooked=False)

    assert result["output_dir"] == "/work/output"
    assert result["train_data_dir"] == "/work/train"
    assert result["reg_data_dir"] == "/work/reg"
    assert result["sample_prompts"] == "/work/prompts.txt"
    assert result["tokenizer_cache_dir"] == "/tokenizers"
    assert result["save_model_as"] == "safetensors"
    assert "resume" not in result


def test_prompts_are_drawn_at_the_end_unless_an_interval_is_configured() -> None:
    table = load_table("v25.2.2")

    assert final(table)["sample_every_n_steps"] == 120
    chosen = final_options(
        {**OPTIONS, "sample_every_n_epochs": 2}, table, PATHS, "cats", 20, 120, None, hooked=True
    )
    assert "sample_every_n_steps" not in chosen


def test_an_interval_of_the_users_own_is_kept() -> None:
    chosen = final_options(
        {"save_every_n_steps": 7}, load_table("v25.2.2"), PATHS, "cats", 20, None, None, hooked=False
    )

    assert chosen["save_every_n_steps"] == 7


def test_the_hooks_save_states_and_the_trainer_does_not() -> None:
    options = {**OPTIONS, "save_state": True, "save_last_n_epochs_state": 1, "save_every_n_epochs": 1}

    chosen = final_options(options, load_table("v25.2.2"), PATHS, "cats", 20, 120, None, hooked=True)

    assert chosen["save_state"] is False
    assert chosen["save_every_n_epochs"] == 1  # models in between, which the user asked for
    assert not {"save_every_n_steps", "save_last_n_epochs_state"} & set(chosen)


def test_the_toml_is_read_alike_by_kohyas_reader_and_the_standard_library() -> None:
    options = {
        "caption_prefix": 'quote " backslash \\ tab \t é 日本 \x7f # no comment',
        "network_args": ["conv_dim=4", "a, b", "[c]"],
        "learning_rate": 1e-05,
        "seed": 2**31,
        "cache_latents": True,
    }

    text = to_toml(options)

    assert tomllib.loads(text) == options
    assert toml.loads(text) == options
