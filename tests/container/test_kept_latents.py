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

from kohya_trainer.command import entry_point
from kohya_trainer.execution import execution
from kohya_trainer.kept_latents import PARTIAL, drop_damaged, folder_of_latents, keep_latents
from kohya_trainer.recipe import Gpus

DATASET = Path("/work/dataset")
OPTIONS = {"cache_latents": True, "network_train_unet_only": True}
RECORD = {"kind": "channel", "file": "sdxl.safetensors"}


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

    keep_latents(SimpleNamespace(SdSdxlLatentsCachingStrategy=Own), tmp_path / "latents", DATASET)
    return Own()


def test_latents_lie_in_the_checkpoints_as_their_images_in_the_dataset(
    strategy: Strategy, tmp_path: Path
) -> None:
    path = strategy.get_latents_npz_path(f"{DATASET}/train/10_sks cat/a.jpg", (1024, 768))

    assert path == str(tmp_path / "latents" / "train" / "10_sks cat" / "a_1024x0768_sdxl.npz")
    strategy.save_latents_to_disk(path, np.zeros(4))
    assert [file.name for file in Path(path).parent.iterdir()] == ["a_1024x0768_sdxl.npz"]
    assert drop_damaged(tmp_path) == 1


def test_images_elsewhere_keep_theirs_beside_them(strategy: Strategy) -> None:
    path = strategy.get_latents_npz_path("/elsewhere/a.jpg", (512, 512))

    assert path == "/elsewhere/a_0512x0512_sdxl.npz"


def test_what_is_not_written_to_its_end_has_no_name(strategy: Strategy, tmp_path: Path) -> None:
    path = Path(strategy.get_latents_npz_path(f"{DATASET}/a.jpg", (512, 512)))

    with pytest.raises(OSError, match="no space left"):
        strategy.save_latents_to_disk(str(path), np.zeros(4), fails=True)

    assert not path.exists()
    assert drop_damaged(tmp_path) == 0
    assert list(tmp_path.rglob("*.npz")) == []


def test_damaged_latents_are_deleted_and_whole_ones_stay(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", latents=np.ones(1000))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "truncated.npz").write_bytes(whole[:500])
    middle = len(whole) // 2
    (tmp_path / "changed.npz").write_bytes(whole[:middle] + b"?" + whole[middle + 1 :])
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "other.npz", something=np.ones(1))
    (tmp_path / f"whole{PARTIAL}").write_bytes(whole)

    assert drop_damaged(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["whole.npz"]
    assert drop_damaged(tmp_path / "missing") == 0


def test_latents_of_anything_else_lie_elsewhere(tmp_path: Path) -> None:
    model = tmp_path / "sdxl.safetensors"
    model.write_bytes(b"12345")
    first = folder_of_latents(tmp_path, OPTIONS, "a dataset", RECORD, [model])

    assert first == folder_of_latents(tmp_path, dict(OPTIONS), "a dataset", dict(RECORD), [model])
    others = [
        folder_of_latents(tmp_path, {**OPTIONS, "flip_aug": True}, "a dataset", RECORD, [model]),
        folder_of_latents(tmp_path, OPTIONS, "another", RECORD, [model]),
        folder_of_latents(tmp_path, OPTIONS, "a dataset", {**RECORD, "file": "b"}, [model]),
    ]
    model.write_bytes(b"123456")
    others.append(folder_of_latents(tmp_path, OPTIONS, "a dataset", RECORD, [model]))
    assert len({first, *others}) == 5


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
    from library import config_util, strategy_base, strategy_sd
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
    keep_latents(strategy_sd, kept, dataset)
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
            return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda: latents))

    def latents_of_a_launch() -> list[Any]:
        subsets = config_util.generate_dreambooth_subsets_config_by_subdirs(args.train_data_dir, None)
        generator = config_util.BlueprintGenerator(config_util.ConfigSanitizer(True, True, False, True))
        blueprint = generator.generate({"datasets": [{"subsets": subsets}]}, args)
        group, _ = config_util.generate_dataset_group_by_blueprint(blueprint.dataset_group)
        accelerator = SimpleNamespace(num_processes=1, process_index=0, wait_for_everyone=lambda: None)
        group.new_cache_latents(Vae(), accelerator)
        (images,) = group.datasets
        found = sorted(images.image_data.values(), key=lambda info: str(info.absolute_path))
        return [strategy.load_latents_from_disk(info.latents_npz, info.bucket_reso)[0] for info in found]

    first = latents_of_a_launch()
    files = sorted(kept.rglob("*.npz"))
    assert sum(encoded) == len(files) == 3
    assert sorted(path.suffix for path in place.iterdir()) == [".png"] * 3 + [".txt"] * 3

    files[1].write_bytes(files[1].read_bytes()[:300])
    assert drop_damaged(kept) == 2
    again = latents_of_a_launch()

    # The damaged one alone.
    assert sum(encoded) == 4
    assert [latents.shape for latents in again] == [latents.shape for latents in first]
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(first, again, strict=True))
