"""Which runs' latents a new run may have, and which of them it takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fine_tuning import kept_latents
from fine_tuning.configuration import Configuration, resolve
from fine_tuning.inventory import InspectedFile
from fine_tuning.latent_options import latent_options
from fine_tuning.manifest import Manifest
from tests.functions_data import RUN, file

PLAN: dict[str, Any] = {
    "base_model": {"kind": "hub", "id": "m", "revision": "r", "file": None},
    "kohya_version": "v25.2.2",
    "layout": [
        {
            "folder": "10_cat",
            "files": [
                {"source": "10_cat/a.jpg", "target": "a.jpg"},
                {"source": "10_cat/a.txt", "target": "a.txt"},
            ],
        }
    ],
}
CAT, DOG = "ca" * 32, "d0" * 32
SOURCE, TARGET = kept_latents.folder("earlier-0123456789ab"), kept_latents.folder("later-0123456789ab")
BEGAN = datetime(2026, 9, 1, tzinfo=UTC)


def options(**config: Any) -> dict[str, Any]:
    """As they go into config.toml."""
    resolved: Configuration = resolve(Manifest({}, config=config), None, "v25.2.2", ["ml.g5.8xlarge"])
    return resolved.values


FIRST = kept_latents.made_with(RUN, PLAN, options())


@pytest.mark.parametrize(
    "config",
    [
        {"learning_rate": 5e-5},
        {"network_dim": 64, "network_alpha": 8},
        {"max_train_epochs": 3, "train_batch_size": 2},
        {"optimizer_type": "Prodigy", "lr_scheduler": "cosine"},
        {"shuffle_caption": True, "cache_text_encoder_outputs": False},
        {"flip_aug": False},
    ],
)
def test_runs_that_learn_otherwise_share_their_latents(config: dict[str, Any]) -> None:
    assert kept_latents.made_with(RUN, PLAN, options(**config)) == FIRST


@pytest.mark.parametrize(
    "config",
    [
        {"resolution": "768,768"},
        {"flip_aug": True},
        {"no_half_vae": False},
        {"bucket_no_upscale": True},
        {"seed": 7},
    ],
)
def test_runs_that_encode_otherwise_do_not(config: dict[str, Any]) -> None:
    before = options()
    assert all(before.get(name) != value for name, value in config.items())
    assert kept_latents.made_with(RUN, PLAN, options(**config)) != FIRST


def test_a_seed_of_0_is_one() -> None:
    assert latent_options({"seed": 0, "flip_aug": False, "random_crop": None}) == {"seed": 0}


def test_neither_do_runs_of_another_dataset_base_model_or_trainer() -> None:
    others = [
        kept_latents.made_with(replace(RUN, dataset_prefix="datasets/dogs/"), PLAN, options()),
        kept_latents.made_with(
            RUN, {**PLAN, "base_model": {**PLAN["base_model"], "revision": "s"}}, options()
        ),
        kept_latents.made_with(RUN, {**PLAN, "kohya_version": "v22.6.2"}, options()),
    ]
    assert len({FIRST, *others}) == 4


def test_another_drop_into_the_same_folder_and_a_retry_share_them() -> None:
    again = replace(RUN, run_id="cats-ba9876543210", manifest_version="v2")
    assert kept_latents.made_with(again, PLAN, options()) == FIRST
    assert kept_latents.made_with(RUN.retry(2), PLAN, options()) == FIRST
    assert kept_latents.folder(RUN.retry(2).first_run_id) == f"{RUN.checkpoint_prefix}latents/"


def test_images_are_those_that_the_trainer_sees() -> None:
    files = [file("10_cat/a.jpg"), file("10_cat/a.txt"), file("other/b.jpg"), file("manifest.toml")]
    assert kept_latents.images(PLAN, files) == {"sha of 10_cat/a.jpg"}


def at(minutes: int, name: str, digest: str = "0123456789abcdef") -> tuple[str, datetime]:
    return f"{SOURCE}{digest}/{name}", BEGAN + timedelta(minutes=minutes)


def test_of_each_image_the_newest_whole_latents_count() -> None:
    newest = at(2, f"{CAT}_1024x0768_sdxl.npz", "fedcba9876543210")
    listed = [
        newest,
        at(1, f"{CAT}_1024x0768_sdxl.npz"),
        at(3, f"{CAT}_1024x0768_sdxl.17.partial.npz"),
        at(3, f"{CAT}_1024x0768_sdxl.npz.tmp"),
        at(3, "train/10_cat/a_1024x0768_sdxl.npz"),  # as an older version of this stack named them
    ]
    assert kept_latents.kept(listed) == {CAT: newest[0]}


def test_what_is_wanted_comes_into_the_new_runs_folder_under_its_name() -> None:
    found = kept_latents.kept([at(1, f"{CAT}_0512x0512_sdxl.npz"), at(1, f"{DOG}_0512x0512_sdxl.npz")])
    assert kept_latents.copies(found, {DOG, "ee" * 32}, SOURCE, TARGET) == {
        f"{SOURCE}0123456789abcdef/{DOG}_0512x0512_sdxl.npz": f"{TARGET}0123456789abcdef/{DOG}_0512x0512_sdxl.npz"
    }


@pytest.mark.parametrize(
    ("given", "by_user", "read"),
    [
        ({}, (), True),
        ({"cache_latents": False}, (), True),  # a preset's: the container caches them
        ({"cache_latents": False}, ("cache_latents",), False),
        ({"cache_latents_to_disk": False}, ("cache_latents_to_disk",), False),
        ({"cache_latents": False, "cache_latents_to_disk": True}, ("cache_latents",), True),
        ({"cache_latents": False, "random_crop": True}, ("random_crop",), False),
    ],
)
def test_what_the_user_says_of_the_cache_decides_whether_latents_are_read(
    given: dict[str, Any], by_user: tuple[str, ...], read: bool
) -> None:
    plan, files = with_images(100)
    assert kept_latents.are_read({**plan, "chosen_by_user": list(by_user)}, files, given) is read
    assert kept_latents.are_read({**plan, "kohya_version": "v22.6.2"}, files, given) is False


def test_of_few_images_they_are_held_in_memory_and_regularization_does_not_count() -> None:
    plan, files = with_images(99)
    regularization = {"folder": "reg/1_cat", "files": [{"source": "reg/1_cat/a.jpg", "target": "a.jpg"}]}
    plan["layout"].append(regularization)
    files.append(file("reg/1_cat/a.jpg"))
    assert not kept_latents.are_read(plan, files, {"cache_latents": True})
    assert kept_latents.are_read(plan, files, {"cache_latents_to_disk": True})


def with_images(count: int) -> tuple[dict[str, Any], list[InspectedFile]]:
    """A plan, and the files of its inventory."""
    files = [file(f"10_cat/{number}.jpg") for number in range(count)]
    placed = [{"source": each.path, "target": each.path.rpartition("/")[2]} for each in files]
    return {**PLAN, "layout": [{"folder": "10_cat", "files": placed}]}, files
