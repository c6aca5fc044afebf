"""Latents that a restart finds: with a strategy that is called as the trainer's is, and with the trainer's own where
torch and KOHYA_HOME are: `./dev test-image` runs it in the image that it has built.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from kohya_trainer.command import entry_point
from kohya_trainer.execution import execution
from kohya_trainer.kept_latents import (
    PARTIAL,
    draw_latents_apart,
    drop_damaged,
    folder_of_latents,
    keep_latents,
)
from kohya_trainer.latent_options import LATENT_OPTIONS
from kohya_trainer.options import load_table
from kohya_trainer.recipe import Gpus
from kohya_trainer.staging import sha256_of
from kohya_trainer.vae_content import vae_sha256

OPTIONS = {"cache_latents": True, "network_train_unet_only": True}
RECORD = {"kind": "hub", "id": "stabilityai/stable-diffusion-xl-base-1.0", "revision": "4621659"}
CAT, DOG = "ca" * 32, "d0" * 32
CONTENTS = {"/work/dataset/train/10_sks cat/a.jpg": CAT, "/work/dataset/train/10_sks cat/b.png": DOG}


class Strategy:
    """The two functions of library/strategy_sd.py, by their names and arguments."""

    def get_latents_npz_path(self, absolute_path: str, image_size: tuple[int, int]) -> str:
        return f"{Path(absolute_path).with_suffix('')}_{image_size[0]:04d}x{image_size[1]:04d}_sdxl.npz"

    def save_latents_to_disk(self, npz_path: str, latents: Any, fails: bool = False) -> None:
        np.savez(npz_path, latents=latents)
        if fails:
            raise OSError("no space left")


@pytest.fixture
def strategy(tmp_path: Path) -> Strategy:
    class Own(Strategy):
        pass

    keep_latents(SimpleNamespace(SdSdxlLatentsCachingStrategy=Own), tmp_path / "latents", CONTENTS)
    return Own()


def test_latents_are_named_by_what_their_image_holds(strategy: Strategy, tmp_path: Path) -> None:
    path = strategy.get_latents_npz_path("/work/dataset/train/10_sks cat/a.jpg", (1024, 768))

    assert path == str(tmp_path / "latents" / f"{CAT}_1024x0768_sdxl.npz")
    strategy.save_latents_to_disk(path, np.zeros(4))
    assert [file.name for file in Path(path).parent.iterdir()] == [f"{CAT}_1024x0768_sdxl.npz"]
    assert drop_damaged(tmp_path, {CAT, DOG}) == 1
    assert drop_damaged(tmp_path, {DOG}) == 0


def test_images_elsewhere_keep_theirs_beside_them(strategy: Strategy, tmp_path: Path) -> None:
    path = strategy.get_latents_npz_path("/elsewhere/a.jpg", (512, 512))

    assert path == "/elsewhere/a_0512x0512_sdxl.npz"


def test_latents_that_lie_beside_an_image_are_taken(tmp_path: Path) -> None:
    class Own(Strategy):
        pass

    beside = tmp_path / "a_0512x0512_sdxl.npz"
    np.savez(beside, latents=np.zeros(4))
    contents = {str(tmp_path / "a.jpg"): CAT}
    keep_latents(SimpleNamespace(SdSdxlLatentsCachingStrategy=Own), tmp_path / "latents", contents)

    assert Own().get_latents_npz_path(str(tmp_path / "a.jpg"), (512, 512)) == str(beside)


def test_what_is_not_written_to_its_end_has_no_name(strategy: Strategy, tmp_path: Path) -> None:
    path = Path(strategy.get_latents_npz_path("/work/dataset/train/10_sks cat/a.jpg", (512, 512)))

    with pytest.raises(OSError, match="no space left"):
        strategy.save_latents_to_disk(str(path), np.zeros(4), fails=True)

    assert not path.exists()
    assert drop_damaged(tmp_path, {CAT}) == 0
    assert list(tmp_path.rglob("*.npz")) == []


def test_damaged_latents_are_deleted_and_whole_ones_stay(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", latents=np.ones(1000))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "whole.npz").rename(tmp_path / f"{CAT}_0512x0512_sdxl.npz")
    (tmp_path / "truncated.npz").write_bytes(whole[:500])
    middle = len(whole) // 2
    (tmp_path / "changed.npz").write_bytes(whole[:middle] + b"?" + whole[middle + 1 :])
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "other.npz", something=np.ones(1))
    (tmp_path / f"whole{PARTIAL}").write_bytes(whole)

    assert drop_damaged(tmp_path, {CAT}) == 1
    assert [path.name for path in tmp_path.iterdir()] == [f"{CAT}_0512x0512_sdxl.npz"]
    assert drop_damaged(tmp_path / "missing", {CAT}) == 0


# What a run of the presets says, and for each option that latents are made with another value.
MADE_WITH: dict[str, Any] = {
    "resolution": "1024,1024",
    "enable_bucket": True,
    "min_bucket_reso": 256,
    "max_bucket_reso": 2048,
    "bucket_reso_steps": 64,
    "mixed_precision": "bf16",
    "no_half_vae": True,
    "seed": 1234,
}
OTHERWISE: dict[str, Any] = {
    "resolution": "768,768",
    "enable_bucket": False,
    "min_bucket_reso": 512,
    "max_bucket_reso": 1024,
    "bucket_reso_steps": 32,
    "bucket_no_upscale": True,
    "resize_interpolation": "lanczos",
    "random_crop": True,
    "flip_aug": True,
    "alpha_mask": True,
    "no_half_vae": False,
    "mixed_precision": "fp16",
    "seed": 7,
}


def named(tmp_path: Path, **options: Any) -> str:
    return folder_of_latents(tmp_path, {**MADE_WITH, **options}, RECORD, "v25.2.2").name


def test_every_option_that_latents_are_made_with_is_of_the_trainers(tmp_path: Path) -> None:
    assert set(OTHERWISE) == set(LATENT_OPTIONS) <= set(load_table("v25.2.2").options)


@pytest.mark.parametrize("option", LATENT_OPTIONS)
def test_latents_made_with_another_option_lie_elsewhere(tmp_path: Path, option: str) -> None:
    assert named(tmp_path, **{option: OTHERWISE[option]}) != named(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 1e-3, "unet_lr": 1e-3, "lr_scheduler": "cosine", "optimizer_type": "Prodigy"},
        {"network_dim": 64, "network_alpha": 32, "network_module": "networks.dylora"},
        {"max_train_steps": 10, "train_batch_size": 8, "gradient_accumulation_steps": 2},
        {"vae_batch_size": 4, "highvram": True, "lowram": True, "cache_latents_to_disk": True},
        {"caption_dropout_rate": 0.1, "shuffle_caption": True, "min_snr_gamma": 5.0, "noise_offset": 0.03},
        {"validation_split": 0.1, "output_name": "other", "train_data_dir": "/other", "flip_aug": False},
    ],
)
def test_what_latents_are_not_made_with_leaves_them_where_they_are(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    assert named(tmp_path, **options) == named(tmp_path)


def checkpoint(path: Path, vae: float, unet: float = 0.0, prefix: str = "first_stage_model.") -> Path:
    tensors = {f"{prefix}encoder.conv_in.weight": np.full((4, 3), vae, np.float32)}
    if prefix:
        tensors["model.diffusion_model.out.2.bias"] = np.full(4, unet, np.float32)
    save_file(tensors, path)
    return path


def test_a_vae_is_known_by_what_it_holds(tmp_path: Path) -> None:
    first = vae_sha256(checkpoint(tmp_path / "a.safetensors", vae=1.0))

    # Of the same size, and under the same name.
    assert vae_sha256(checkpoint(tmp_path / "a.safetensors", vae=2.0)) != first
    assert vae_sha256(checkpoint(tmp_path / "b.safetensors", vae=1.0, unet=9.0)) == first
    assert vae_sha256(checkpoint(tmp_path / "vae.safetensors", vae=1.0, prefix="")) == first
    folder = tmp_path / "diffusers" / "vae"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    before = vae_sha256(folder.parent)
    checkpoint(folder / "diffusion_pytorch_model.safetensors", vae=1.0, prefix="")
    assert len({first, before, vae_sha256(folder.parent)}) == 3


def test_latents_by_another_vae_lie_elsewhere(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "sdxl.safetensors", vae=1.0)
    first = named(tmp_path, pretrained_model_name_or_path=str(model))
    vae = checkpoint(tmp_path / "vae.safetensors", vae=3.0, prefix="")

    with_its_own = named(tmp_path, pretrained_model_name_or_path=str(model), vae=str(vae))
    checkpoint(model, vae=2.0)
    exchanged = named(tmp_path, pretrained_model_name_or_path=str(model))
    by_the_hub = [
        named(tmp_path, pretrained_model_name_or_path=name) for name in ("a/model", "another/model")
    ]
    assert len({first, with_its_own, exchanged, *by_the_hub}) == 5
    # A revision that the trainer fetches by itself, and another trainer.
    fetched = {**MADE_WITH, "pretrained_model_name_or_path": "a/model"}
    assert folder_of_latents(tmp_path, fetched, {**RECORD, "revision": "2"}, "v25.2.2").name != by_the_hub[0]
    assert folder_of_latents(tmp_path, fetched, RECORD, "v26.0.0").name != by_the_hub[0]


@pytest.mark.parametrize(
    ("images", "gpus", "options", "by_user", "kept"),
    [
        (100, Gpus(1, 79.1), {}, (), True),
        (99, Gpus(1, 79.1), {}, (), False),
        (100, Gpus(8, 79.1), {}, (), True),
        (100, Gpus(2, 79.1, hosts=2), {}, (), False),
        (100, Gpus(1, 79.1), {"random_crop": True}, (), False),
        (100, Gpus(1, 79.1), {}, ("cache_latents_to_disk",), False),
    ],
)
def test_latents_are_kept_where_that_pays_and_nobody_else_decided(
    images: int, gpus: Gpus, options: dict[str, Any], by_user: tuple[str, ...], kept: bool
) -> None:
    chosen = execution({**OPTIONS, **options}, frozenset(by_user), 2**20, gpus, 16, images=images).settings

    assert ("cache_latents_to_disk" in chosen) is kept


def test_the_trainers_own_strategy_encodes_each_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    if not (home := os.environ.get("KOHYA_HOME")):
        pytest.skip("KOHYA_HOME is not set")
    monkeypatch.setattr(sys, "path", [str(entry_point(Path(home)).parent), *sys.path])
    import sdxl_train_network
    from library import config_util, strategy_base, strategy_sd, train_util
    from PIL import Image

    dataset, kept = tmp_path / "dataset", tmp_path / "latents"
    place = dataset / "train" / "2_sks cat"
    place.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (128, 64 + 64 * number), (40 * number, 80, 90)).save(place / f"{number}.png")
        (place / f"{number}.txt").write_text("sks cat", encoding="utf-8")
    for name in ("get_latents_npz_path", "save_latents_to_disk"):  # put back after the test
        own = getattr(strategy_sd.SdSdxlLatentsCachingStrategy, name)
        monkeypatch.setattr(strategy_sd.SdSdxlLatentsCachingStrategy, name, own)
    contents = {str(path): sha256_of(path) for path in place.glob("*.png")}
    monkeypatch.setattr(
        train_util.DatasetGroup, "new_cache_latents", train_util.DatasetGroup.new_cache_latents
    )
    keep_latents(strategy_sd, kept, contents)
    draw_latents_apart(train_util, torch)
    strategy = strategy_sd.SdSdxlLatentsCachingStrategy(False, True, 2, False)
    monkeypatch.setattr(strategy_base.LatentsCachingStrategy, "_strategy", strategy)
    arguments = [
        "--resolution",
        "128",
        "--enable_bucket",
        "--min_bucket_reso",
        "64",
        "--cache_latents_to_disk",
    ]
    args = sdxl_train_network.setup_parser().parse_args(
        [*arguments, "--train_data_dir", str(dataset / "train")]
    )
    args.caption_extension, args.resolution = ".txt", (128, 128)
    encoded: list[int] = []

    class Vae:
        device, dtype = torch.device("cpu"), torch.float32

        def encode(self, images: Any) -> Any:
            encoded.append(len(images))
            latents = torch.nn.functional.avg_pool2d(images, 8).repeat(1, 2, 1, 1)[:, :4]
            drawn = latents + 0.01 * torch.randn_like(latents)
            return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda: drawn))

    noise: list[float] = []

    def latents_of_a_launch() -> list[Any]:
        torch.manual_seed(1234)
        subsets = config_util.generate_dreambooth_subsets_config_by_subdirs(args.train_data_dir, None)
        generator = config_util.BlueprintGenerator(config_util.ConfigSanitizer(True, True, False, True))
        blueprint = generator.generate({"datasets": [{"subsets": subsets}]}, args)
        group, _ = config_util.generate_dataset_group_by_blueprint(blueprint.dataset_group)
        accelerator = SimpleNamespace(
            num_processes=1, process_index=0, wait_for_everyone=lambda: None, device=torch.device("cpu")
        )
        group.new_cache_latents(Vae(), accelerator)
        noise.append(float(torch.rand(1)))
        (images,) = group.datasets
        found = sorted(images.image_data.values(), key=lambda info: str(info.absolute_path))
        return [strategy.load_latents_from_disk(info.latents_npz, info.bucket_reso)[0] for info in found]

    first = latents_of_a_launch()
    files = sorted(kept.rglob("*.npz"))
    assert sum(encoded) == len(files) == 3
    assert sorted(path.suffix for path in place.iterdir()) == [".png"] * 3 + [".txt"] * 3

    files[1].write_bytes(files[1].read_bytes()[:300])
    assert drop_damaged(kept, contents.values()) == 2
    again = latents_of_a_launch()

    # The damaged one alone.
    assert sum(encoded) == 4
    assert [latents.shape for latents in again] == [latents.shape for latents in first]
    assert [np.array_equal(ours, theirs) for ours, theirs in zip(first, again, strict=True)].count(True) == 2
    # The training's own numbers are the same whether latents were drawn before them or found.
    latents_of_a_launch()
    assert sum(encoded) == 4
    assert len(set(noise)) == 1
