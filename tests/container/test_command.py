"""From options and machine to argv and TOML: pure, so nothing is launched here."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toml

from kohya_trainer.command import (
    FORBIDDEN,
    TRAINER,
    TRAINER_PROCESS,
    TrainerPaths,
    checked_options,
    entry_point,
    final_options,
    launch_arguments,
    network_variables,
)
from kohya_trainer.environment import Machine
from kohya_trainer.errors import InvalidConfigurationError, UnsupportedKohyaVersionError
from kohya_trainer.options import TABLES, OptionTable, load_table
from kohya_trainer.resume import Loop, ResumePoint, can_resume, expected_steps, resume_point, save_interval
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


def machine(gpus: int = 0, hosts: tuple[str, ...] = ("algo-1",), cpus: int = 16) -> Machine:
    return Machine(gpus=("GPU",) * gpus, cpus=cpus, hosts=hosts, current_host=hosts[-1], python="python3")


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


def test_without_a_gpu_the_script_runs_in_plain_python() -> None:
    arguments = launch_arguments(Path("/k/s.py"), Path("/c.toml"), OPTIONS, machine())

    assert arguments == ["python3", str(TRAINER_PROCESS), "/k/s.py", "--config_file", "/c.toml"]


def test_one_gpu_needs_no_launcher() -> None:
    arguments = launch_arguments(Path("/k/s.py"), Path("/c.toml"), OPTIONS, machine(gpus=1))

    assert arguments == ["python3", str(TRAINER_PROCESS), "/k/s.py", "--config_file", "/c.toml"]
    assert TRAINER_PROCESS.is_file()


def test_gpus_of_one_host_are_launched_by_accelerate_with_precision_and_threads_set() -> None:
    arguments = launch_arguments(Path("/k/s.py"), Path("/c.toml"), OPTIONS, machine(gpus=2))

    assert arguments[:4] == ["python3", "-m", "accelerate.commands.launch", "--multi_gpu"]
    pairs = dict(zip(arguments[4:-4:2], arguments[5:-4:2], strict=True))
    assert pairs == {
        "--num_processes": "2",
        "--num_machines": "1",
        "--mixed_precision": "bf16",
        "--num_cpu_threads_per_process": "8",
        "--dynamo_backend": "no",
    }
    assert arguments[-4:] == [str(TRAINER_PROCESS), "/k/s.py", "--config_file", "/c.toml"]


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (5, 0),  # within the first epoch the trainer's average is right
        (20, 0),  # on the border of two epochs nothing is passed over
        (25, 15),
    ],
)
def test_the_steps_with_a_diluted_average_are_those_left_of_a_later_epoch(done: int, expected: int) -> None:
    point = resume_point(Path("state"), done, Loop(batches=20, accumulation=1, total=60), hooked=False)

    assert point is not None
    assert point.diluted == expected


def test_several_hosts_meet_at_the_first_one() -> None:
    hosts = ("algo-1", "algo-2")
    arguments = launch_arguments(Path("/k/s.py"), Path("/c.toml"), {}, machine(gpus=4, hosts=hosts))

    text = " ".join(arguments)
    assert "--multi_gpu --num_processes 8 --num_machines 2 --mixed_precision no" in text
    assert "--machine_rank 1 --main_process_ip algo-1 --main_process_port 29500" in text
    assert "--num_cpu_threads_per_process 4" in text


def test_several_hosts_speak_over_the_interface_that_sagemaker_names() -> None:
    several = replace(machine(hosts=("algo-1", "algo-2")), network_interface="eth1")

    assert network_variables(several) == {"NCCL_SOCKET_IFNAME": "eth1", "GLOO_SOCKET_IFNAME": "eth1"}
    assert network_variables(replace(several, hosts=("algo-1",))) == {}


@pytest.mark.parametrize("place", [f"sd-scripts/{TRAINER}", TRAINER])
def test_the_entry_point_is_found_in_both_layouts(tmp_path: Path, place: str) -> None:
    script = tmp_path / place
    script.parent.mkdir(exist_ok=True)
    script.touch()

    assert entry_point(tmp_path) == script


def test_a_clone_without_its_submodule_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "sd-scripts").mkdir()

    with pytest.raises(UnsupportedKohyaVersionError, match="--recurse-submodules"):
        entry_point(tmp_path)


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


@pytest.mark.parametrize("version", VERSIONS)
def test_every_forbidden_option_is_one_that_kohya_has(version: str) -> None:
    known = load_table("v25.2.2")

    assert all(name in known for name in FORBIDDEN)
    assert json.loads((TABLES / f"kohya_ss-{version}.json").read_bytes())["trainer"] == TRAINER


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


@pytest.mark.parametrize("total", [40, 34, 7])
@pytest.mark.parametrize("batches", [1, 5, 20])
def test_a_resumed_loop_makes_exactly_the_missing_steps(total: int, batches: int) -> None:
    loop = Loop(batches=batches, accumulation=1, total=total)
    beyond = -total % batches  # steps of the last epoch that are not wanted
    for done in range(1, total):
        point = resume_point(Path("state"), done, loop, hooked=False)
        if point is None:  # the trainer refuses an initial_step as large as it would need
            assert beyond
            assert done + beyond >= total
            continue
        assert loop.steps_made(point.initial_step, point.skip) == total - done
        if not beyond:
            assert point.initial_step == done


def test_nothing_is_resumed_from_a_finished_state() -> None:
    for hooked in (False, True):
        assert resume_point(Path("state"), 40, Loop(batches=20, accumulation=1, total=40), hooked) is None


def test_with_the_hooks_every_step_can_be_gone_on_from_at_its_place_in_the_epoch() -> None:
    for done in range(1, 34):
        point = resume_point(Path("state"), done, Loop(batches=20, accumulation=1, total=34), hooked=True)

        assert point == ResumePoint(Path("state"), done, done, done % 20, skip=True, exact=True)
        # As the trainer itself works it out.
        assert Loop(batches=20, accumulation=1, total=34).start(done, skip=True) == (done // 20, done % 20)


def test_with_accumulation_the_hooks_leave_the_trainers_own_count() -> None:
    loop = Loop(batches=20, accumulation=4, total=40)

    for done in range(1, 40):
        assert resume_point(Path("s"), done, loop, hooked=True) == resume_point(Path("s"), done, loop, False)


@pytest.mark.parametrize(
    ("options", "planned", "expected"),
    [
        ({"max_train_epochs": 8}, 104, 104),
        ({"max_train_epochs": 8, "train_batch_size": 2}, None, 8 * 13),
        ({"max_train_epochs": 3, "train_batch_size": 2, "gradient_accumulation_steps": 2}, None, 3 * 7),
        ({"max_train_steps": 50}, None, 50),
        ({}, None, 1600),
    ],
)
def test_the_number_of_steps_is_known_before_the_trainer_tells_it(
    options: dict[str, int], planned: int | None, expected: int
) -> None:
    assert expected_steps(options, load_table("v25.2.2"), planned, examples=26) == expected


def test_states_are_saved_about_ten_times_a_run_and_at_epoch_ends_with_accumulation() -> None:
    assert [save_interval(total) for total in (5, 120, 1600, 100_000)] == [10, 12, 160, 200]
    assert save_interval(120, epochs=8, accumulation=2) == 15
