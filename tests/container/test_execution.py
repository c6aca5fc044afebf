"""How a step is carried out on a machine: each choice, and what it leaves alone."""

import json
from typing import Any

import pytest

from kohya_trainer.environment import Machine
from kohya_trainer.execution import VARIABLE, Executed, executed, execution
from kohya_trainer.inputs import Inputs
from kohya_trainer.options import load_table
from kohya_trainer.recipe import Gpus
from tests.recipe_data import CHARACTER, MEGAPIXEL, NOBODY, USERS_OWN

MACHINE = Machine(gpus=("GPU",), cpus=16, hosts=("algo-1",), current_host="algo-1", python="python3")
IMAGES = 500


def on_a_machine(
    options: dict[str, Any], by_user: list[str] | None = None, version: str = "v25.2.2"
) -> Executed:
    """On one GPU of 79.1 GiB; without a plan where nobody says what the user set."""
    plan = {"chosen_by_user": by_user} if by_user is not None else None
    inputs = Inputs(options, plan=plan)
    return executed(options, inputs, load_table(version), MACHINE, {"GPU_MEMORY_LIMIT_GB": "79.1"}, IMAGES)


def test_an_execution_changes_nothing_that_is_learned() -> None:
    chosen = execution(CHARACTER, NOBODY, MEGAPIXEL, Gpus(1, 79.1), 16).settings
    learned = {"train_batch_size", "gradient_accumulation_steps", "learning_rate", "max_train_steps", "seed"}
    assert not learned & set(chosen)
    assert chosen["optimizer_args"] == ["fused=True"]


def test_every_option_that_is_decided_has_a_value_of_the_users_here() -> None:
    bare = {"network_train_unet_only": True}
    decided = set(execution(bare, NOBODY, MEGAPIXEL, Gpus(1, 79.1), 16, images=IMAGES).settings)
    assert decided - {"computed_again"} == set(USERS_OWN)


@pytest.mark.parametrize("name", sorted(USERS_OWN))
def test_what_the_user_set_stays_with_a_plan_and_without(name: str) -> None:
    options = {**CHARACTER, name: USERS_OWN[name]}
    alone = {"network_train_unet_only": True, name: USERS_OWN[name]}

    unsaid = {key: value for key, value in CHARACTER.items() if key != name}
    assert on_a_machine(unsaid, []).options[name] != USERS_OWN[name]
    assert on_a_machine(options, [name]).options[name] == USERS_OWN[name]
    assert on_a_machine(alone).options[name] == USERS_OWN[name]


@pytest.mark.parametrize(("checkpointing", "again"), [(True, 1.0), (False, 0.0)])
def test_the_fast_network_keeps_as_much_as_the_user_said(checkpointing: bool, again: float) -> None:
    options = {**CHARACTER, "train_batch_size": 16, "gradient_checkpointing": checkpointing}
    assert json.loads(on_a_machine(options, []).variables[VARIABLE])["again"] == 0.25
    assert json.loads(on_a_machine(options, ["gradient_checkpointing"]).variables[VARIABLE])["again"] == again


def test_an_older_torch_is_not_asked_to_fuse_what_is_not_on_the_gpu_yet() -> None:
    assert on_a_machine(CHARACTER, []).options["optimizer_args"] == ["fused=True"]
    assert "optimizer_args" not in on_a_machine(CHARACTER, [], "v22.6.2").options


@pytest.mark.parametrize("name", ["use_8bit_adam", "use_lion_optimizer"])
def test_another_optimizer_by_its_older_name_is_not_fused(name: str) -> None:
    options = {key: value for key, value in CHARACTER.items() if key != "optimizer_type"} | {name: True}

    assert (
        "optimizer_args" not in execution(options, frozenset({name}), MEGAPIXEL, Gpus(1, 79.1), 16).settings
    )
    assert "optimizer_args" not in on_a_machine(options, [name]).options


def test_what_would_be_refused_from_a_user_is_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kohya_trainer.execution.takers", lambda options: {"optimizer_args": "AdamW"})

    run = on_a_machine({**CHARACTER, "optimizer_type": "AdamW8bit"}, [])

    assert "optimizer_args" not in run.options
    assert run.options["lowram"]
    assert not any("fused" in line for line in run.lines)


def test_processes_last_where_there_are_any() -> None:
    options = {**CHARACTER, "persistent_data_loader_workers": True}

    def lasting(workers: int) -> Any:
        of_user = {**options, "max_data_loader_n_workers": workers}
        return on_a_machine(of_user, ["max_data_loader_n_workers"]).options["persistent_data_loader_workers"]

    assert (lasting(0), lasting(1)) == (False, True)
    assert on_a_machine(options, []).options["persistent_data_loader_workers"] is True


def _loaders(options: dict[str, Any], gpus: Gpus, cpus: int = 32) -> int:
    chosen = execution(options, NOBODY, MEGAPIXEL, gpus, cpus).settings
    return int(chosen["max_data_loader_n_workers"])


def test_the_cpus_of_a_host_are_shared_by_its_own_gpus() -> None:
    changing = {**CHARACTER, "cache_text_encoder_outputs": False, "shuffle_caption": True}

    hosts = (Gpus(1, 79.1), Gpus(4, 79.1), Gpus(8, 79.1, hosts=2))
    assert [_loaders(changing, gpus) for gpus in hosts] == [8, 4, 4]


@pytest.mark.parametrize(
    ("cached", "changing"),
    [("cache_latents", "color_aug"), ("cache_text_encoder_outputs", "shuffle_caption")],
)
def test_two_processes_load_what_is_cached_and_more_what_changes(cached: str, changing: str) -> None:
    uncached = {**CHARACTER, cached: False}

    assert _loaders(CHARACTER, Gpus(1, 79.1)) == _loaders(uncached, Gpus(1, 79.1)) == 2
    assert _loaders(CHARACTER, Gpus(1, 79.1), cpus=2) == 1
    assert _loaders({**uncached, changing: True}, Gpus(1, 79.1)) == 8


def test_memory_decides_how_the_checkpoint_is_loaded_and_how_many_pictures_are_encoded_at_a_time() -> None:
    def loading(memory: float) -> dict[str, Any]:
        chosen = execution(CHARACTER, NOBODY, MEGAPIXEL, Gpus(1, memory), 8).settings
        return {name: chosen.get(name) for name in ("lowram", "vae_batch_size", "highvram")}

    assert loading(14.6) == {"lowram": None, "vae_batch_size": None, "highvram": None}
    assert loading(22.0) == {"lowram": True, "vae_batch_size": None, "highvram": None}
    assert loading(44.5) == {"lowram": True, "vae_batch_size": 4, "highvram": True}


@pytest.mark.parametrize(
    ("side", "memory", "several"),
    [(512, 29.0, False), (512, 30.0, True), (1536, 44.5, False), (1536, 79.1, True), (2048, 79.1, False)],
)
def test_larger_pictures_are_encoded_together_on_larger_gpus_only(
    side: int, memory: float, several: bool
) -> None:
    chosen = execution(CHARACTER, NOBODY, side * side, Gpus(1, memory), 8).settings
    assert ("vae_batch_size" in chosen) is several


def test_attention_is_one_kernel_unless_another_was_asked_for() -> None:
    def attention(**asked: bool) -> Any:
        return execution(asked, NOBODY, MEGAPIXEL, Gpus(1, 22.0), 8).settings.get("sdpa")

    assert attention() is True
    assert attention(xformers=True) is None
    assert attention(mem_eff_attn=True) is None


def test_captions_that_change_are_not_cached() -> None:
    options = {"network_train_unet_only": True, "shuffle_caption": True, "random_crop": True}
    chosen = execution(options, NOBODY, MEGAPIXEL, Gpus(1, 22.0), 8).settings
    assert "cache_text_encoder_outputs" not in chosen
    assert "cache_latents" not in chosen
    del options["shuffle_caption"], options["random_crop"]
    chosen = execution(options, NOBODY, MEGAPIXEL, Gpus(1, 22.0), 8).settings
    assert chosen["cache_text_encoder_outputs"]
    assert chosen["cache_latents"]


@pytest.mark.parametrize(
    "option", ["caption_prefix", "caption_suffix", "enable_wildcard", "secondary_separator"]
)
def test_captions_that_the_trainer_completes_are_not_cached(option: str) -> None:
    """For the cache it would encode what their files say."""
    options = {"network_train_unet_only": True, option: "in colour"}
    chosen = execution(options, frozenset(options), MEGAPIXEL, Gpus(1, 22.0), 8).settings
    assert "cache_text_encoder_outputs" not in chosen


@pytest.mark.parametrize("option", ["random_crop", "color_aug", "face_crop_aug_range", "cache_latents"])
def test_latents_are_kept_nowhere_where_pictures_change_or_nobody_wants_them(option: str) -> None:
    options = {option: {"face_crop_aug_range": "1.0,2.0", "cache_latents": False}.get(option, True)}
    chosen = execution(options, frozenset(options), MEGAPIXEL, Gpus(1, 22.0), 8, images=500).settings
    assert not {"cache_latents", "cache_latents_to_disk"} & set(chosen)


def test_every_choice_has_a_reason() -> None:
    chosen = execution({}, NOBODY, MEGAPIXEL, Gpus(2, 22.0), 8)
    assert all(choice.reason for choice in chosen.choices)
    assert len(chosen.lines()) == len(chosen.choices) > 0
