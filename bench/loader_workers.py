"""What the processes cost that load the data, where all that an image needs is cached, and what they save.

    PYTHON bench/loader_workers.py SD_SCRIPTS

PYTHON has the trainer's packages (torch for a CPU is enough), SD_SCRIPTS is a checkout of 2e0fcc5. The trainer's own
dataset hands out batches of 16 images of 1024 x 1024 with random latents, in memory or on the disk, and random outputs
of the text encoders; a process each for every row. A step is a pause of 0.2 s. Beside 3 GiB of other memory, because
what a process costs grows with the pages of the one that it is made from. CPU seconds: those of a busy machine tell
nothing but the order of its queue.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS, BATCH, IMAGES, PAUSE, BESIDE_GIB = 20, 16, 40, 0.2, 3


def dataset_of(folder: Path, on_disk: bool) -> Any:
    """The trainer's, of pictures whose latents are cached and whose captions have been encoded."""
    import numpy as np
    import torch
    from library import config_util, strategy_base, strategy_sd, strategy_sdxl, train_util
    from PIL import Image

    place = folder / "data" / "10_sks cat"
    place.mkdir(parents=True)
    for index in range(IMAGES):
        Image.new("RGB", (1024, 1024)).save(place / f"{index}.png")
        (place / f"{index}.txt").write_text("sks cat", encoding="utf-8")
    parser = argparse.ArgumentParser()
    train_util.add_dataset_arguments(parser, True, True, True)
    train_util.add_training_arguments(parser, True)
    options = parser.parse_args(["--train_batch_size", str(BATCH), "--enable_bucket"])
    options.resolution = (1024, 1024)
    subsets = config_util.generate_dreambooth_subsets_config_by_subdirs(str(place.parent), None)
    sanitizer = config_util.ConfigSanitizer(True, False, False, True)
    blueprint = config_util.BlueprintGenerator(sanitizer).generate(
        {"datasets": [{"subsets": subsets}]}, options
    )
    group, _ = config_util.generate_dataset_group_by_blueprint(blueprint.dataset_group)
    latents = strategy_sd.SdSdxlLatentsCachingStrategy(False, on_disk, 4, False)
    strategy_base.LatentsCachingStrategy.set_strategy(latents)
    texts = strategy_sdxl.SdxlTextEncoderOutputsCachingStrategy(False, None, False, False)
    strategy_base.TextEncoderOutputsCachingStrategy.set_strategy(texts)
    group.set_current_strategies()
    size, crop = (1024, 1024), (0, 0, 1024, 1024)
    for index, image in enumerate(group.datasets[0].image_data.values()):
        image.text_encoder_outputs = [
            np.zeros(shape, np.float32) for shape in ((77, 768), (77, 1280), (1280,))
        ]
        image.latents_original_size, image.latents_crop_ltrb = size, crop
        if on_disk:
            image.latents_npz = str(folder / f"{index}.npz")
            content = {
                "latents": np.zeros((4, 128, 128), np.float32),
                "original_size": size,
                "crop_ltrb": crop,
            }
            np.savez(image.latents_npz, **content)
        else:
            image.latents = torch.zeros(4, 128, 128)
    return group


def measured(workers: int, on_disk: bool, folder: Path) -> dict[str, float]:
    import torch
    from library import train_util

    torch.set_num_threads(1)
    group = dataset_of(folder, on_disk)
    beside = torch.ones(BESIDE_GIB << 28)
    epoch, step = multiprocessing.Value("i", 0), multiprocessing.Value("i", 0)
    collator = train_util.collator_class(epoch, step, None if workers else group)
    begun = [time.process_time(), time.monotonic()]
    loader = torch.utils.data.DataLoader(
        group, 1, True, num_workers=workers, collate_fn=collator, persistent_workers=workers > 0
    )
    batches = iter(loader)
    next(batches)
    first = [time.process_time(), time.monotonic()]
    for _ in range(STEPS):
        time.sleep(PAUSE)
        next(batches)
    last = time.process_time()
    del batches, loader
    assert beside[0] == 1
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "first_cpu": first[0] - begun[0],
        "first_wall": first[1] - begun[1],
        "batch_cpu_ms": (last - first[0]) / STEPS * 1000,
        "workers_cpu": children.ru_utime + children.ru_stime,
    }


def main(sd_scripts: str) -> None:
    print(
        "latents  workers  until the first batch, s of CPU (of wall)  a batch, ms of CPU  workers in all, s of CPU"
    )
    for on_disk in (False, True):
        for workers in (0, 1, 2, 8):
            command = [sys.executable, __file__, sd_scripts, str(workers), str(int(on_disk))]
            told = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
            ).stdout
            row = json.loads(told.splitlines()[-1])
            print(
                f"{'disk' if on_disk else 'memory':7} {workers:8} {row['first_cpu']:10.2f} ({row['first_wall']:.2f})"
                f" {row['batch_cpu_ms']:34.1f} {row['workers_cpu']:25.2f}",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        sys.path.insert(0, str(Path(sys.argv[1]).resolve()))
        with tempfile.TemporaryDirectory() as made:
            print("\n" + json.dumps(measured(int(sys.argv[2]), sys.argv[3] == "1", Path(made))))
