"""How a step is carried out on a machine: each choice, and what it leaves alone."""

from typing import Any

import pytest

from kohya_trainer.execution import execution
from kohya_trainer.recipe import Gpus
from tests.recipe_data import CHARACTER, MEGAPIXEL, NOBODY


def test_an_execution_changes_nothing_that_is_learned() -> None:
    chosen = execution(CHARACTER, NOBODY, MEGAPIXEL, Gpus(1, 79.1), 16).settings
    learned = {"train_batch_size", "gradient_accumulation_steps", "learning_rate", "max_train_steps", "seed"}
    assert not learned & set(chosen)
    assert chosen["optimizer_args"] == ["fused=True"]


def test_an_execution_leaves_what_the_user_set() -> None:
    user = frozenset({"gradient_checkpointing", "optimizer_args", "max_data_loader_n_workers"})
    assert not user & set(execution(CHARACTER, user, MEGAPIXEL, Gpus(1, 79.1), 16).settings)


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
