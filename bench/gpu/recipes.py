"""Images a second, GPU memory and start-up of `container/train` with the real trainer, and of a peer, on one GPU.

    python bench/gpu/recipes.py --sd-scripts DIR --vocabulary FILE [--peer-script FILE] [--work DIR] [--out DIR]

Runs follow one another on the same fabricated checkpoint and the same pictures of 1024 × 1024: the original recipe as
Kohya runs it; ours, with what its resolver chooses within the memory of four classes of GPU (torch's own limiter stands
for the smaller ones), at the batch that a plan has by itself and at batch 16, which a user has to ask for; and
diffusers' train_text_to_image_lora_sdxl.py, which is not part of this repository
(`git show v0.32.1:examples/text_to_image/train_text_to_image_lora_sdxl.py`). States are not saved meanwhile.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "gpu"))

from other_tools import packages
from preparation import bench_of, machine, parser
from roots import REPOSITORY, Bench, Root, Run, followed, preset

SIDE = 1024
# As many as the aim for the start-up names; caching fewer spares a minute where only the steps are of interest.
IMAGES, FEWER_IMAGES = 64, 16
# The first steps choose kernels, record graphs and fill the allocator.
STEPS_OF_WARM_UP = 8
# Lines of the log, in the order in which they come; what is between two of them is one item of the start-up.
MARKS = {
    "inputs": r"^launching ",
    "imports": r"Loading settings from",
    "dataset": r"preparing accelerator",
    "checkpoint": r"VAE: <All keys matched",
    # The network's modules are made beside it.
    "caching": r"^prepare optimizer",
    "network": r"^running training",
    "hashes": r"^epoch 1/",
    "first step": r"^progress step=1 ",
}


@dataclass(frozen=True)
class Recipe:
    """A preset with changes, for how many steps it runs, and torch's own limit of its GPU memory.

    as_written: everything counts as the user's wish, and Kohya's own U-Net trains.
    images: pictures, each seen 640 / images times an epoch.
    """

    name: str
    preset: str
    changes: dict[str, Any]
    steps: int
    memory_limit_gib: float | None = None
    as_written: bool = False
    images: int = FEWER_IMAGES


OF_16 = {"train_batch_size": 16, "learning_rate": 2e-4}
# What functions/fine_tuning/learning.py makes of the preset's 4 on an H100 and an H200, and on no smaller GPU.
OF_8 = {"train_batch_size": 8, "learning_rate": 1.68e-4}
# Settings that kohya_ss itself offers (v25.2.2, presets/lora/SDXL - LoRA AI_Now ADamW v1.0.json), as far as they differ
# from `sample-2024`; torch's own attention stands for xformers.
KOHYA_PRESET = {
    "network_dim": 32,
    "network_alpha": 32,
    "train_batch_size": 4,
    "optimizer_type": "AdamW",
    "optimizer_args": [],
    "learning_rate": 1e-4,
    "unet_lr": 1e-4,
    "text_encoder_lr": 1e-4,
    "max_grad_norm": 1.0,
    "min_snr_gamma": 5.0,
    "min_timestep": 100,
    "max_timestep": 900,
    "noise_offset": 0.0375,
    "adaptive_noise_scale": 0.00375,
    "bucket_no_upscale": True,
    "max_data_loader_n_workers": 0,
    "persistent_data_loader_workers": False,
}
RECIPES = (
    Recipe("the original: `sample-2024`", "sample-2024", {}, 14, as_written=True),
    # What a GPU of 24 GB gives to torch, and so on.
    Recipe("ours, 24 GB, batch 16", "sdxl-character", OF_16, 20, 22.0),
    Recipe("ours, 48 GB, batch 16", "sdxl-character", OF_16, 20, 44.5),
    Recipe("ours, 80 GB, batch 16", "sdxl-character", OF_16, 20, 79.1),
    Recipe("ours, all of the GPU, batch 16", "sdxl-character", OF_16, 28, images=IMAGES),
    Recipe("ours, 24 GB, as planned", "sdxl-character", {}, 40, 22.0),
    Recipe("ours without the fast U-Net, batch 16", "sdxl-character", OF_16, 16, as_written=True),
    Recipe("kohya_ss's preset AI_Now ADamW", "sample-2024", KOHYA_PRESET, 16, as_written=True),
    Recipe("ours, all of the GPU, as planned", "sdxl-character", OF_8, 30),
)
# Name, arguments, steps. The first is the command of its README; the second the fastest batch found.
PEERS = (
    ("diffusers' script, as in its README", {"train_batch_size": 1}, 16),
    ("diffusers' script, its best batch", {"train_batch_size": 8}, 13),
)


class Meter:
    """Reads the driver's numbers twice a second while a run is going on."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> "Meter":
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _read(self) -> None:
        query = ["nvidia-smi", "--query-gpu=memory.used,utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._ended.wait(0.5):
            read = subprocess.run(query, capture_output=True, text=True, check=False).stdout
            numbers = [int(text) for text in read.splitlines()[0].split(",")] if read else [0, 0]
            self.samples.append((time.monotonic() - self._began, numbers[0], numbers[1]))


def measure(recipe: Recipe, bench: Bench, number: int) -> dict[str, Any]:
    """One run; the numbers of one row. `ok` is False when it did not end with a proved model."""
    variables = _limited(recipe.memory_limit_gib)
    if recipe.as_written:
        variables["KOHYA_ACCELERATION"] = "off"
    root = Root(bench, f"recipe-{number}", variables)
    root.add_images(recipe.images, SIDE, folder=f"{640 // recipe.images}_sks cat")
    options = {**preset(recipe.preset), **recipe.changes, "max_train_steps": recipe.steps}
    for name in ("save_every_n_epochs", "save_last_n_epochs", "save_last_n_epochs_state"):
        options.pop(name, None)
    wishes = sorted(options) if recipe.as_written else []
    root.write_plan({**options, "save_every_n_steps": 100_000}, chosen_by_user=wishes)
    with Meter() as meter:
        run = root.run()
    row: dict[str, Any] = {"recipe": recipe.name, "ok": run.code == 0, "failure": run.failure[:300]}
    row["said"] = [line for line in run.lines if line.startswith(("recipe: ", "acceleration: "))]
    if run.code:
        row["last_lines"] = run.lines[-20:]
    else:
        row |= _steady(run, meter, recipe.steps, int(options["train_batch_size"]))
        row |= {"start_up": _start_up(run)}
    shutil.rmtree(root.path, ignore_errors=True)
    return row


def measure_peer(
    script: Path, name: str, arguments: dict[str, Any], steps: int, bench: Bench, sd_scripts: Path
) -> dict[str, Any]:
    """The same row of the peer."""
    root = Root(bench, "peer")
    root.add_images(FEWER_IMAGES, SIDE, folder="10_sks cat")
    folder = bench.work / "diffusers-format"
    for number, tokenizer in enumerate(sorted(bench.tokenizers.iterdir(), reverse=True)):
        place = folder / ("tokenizer", "tokenizer_2")[number]
        shutil.copytree(tokenizer, place, dirs_exist_ok=True)
    runner = Path(__file__).parent / "peer" / "run.py"
    given = {"rank": 32, "resolution": SIDE, "mixed_precision": "bf16", "seed": 1234, **arguments}
    command = [sys.executable, runner, script, folder, root.data / "dataset", str(steps)]
    command += [f"--{option}={value}" for option, value in given.items()]
    # It would ask a hub.
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, (packages(), str(sd_scripts))))
    with Meter() as meter:
        run = followed([str(part) for part in command], variables, root.log)
    row: dict[str, Any] = {"recipe": name, "ok": run.code == 0, "failure": "\n".join(run.lines[-3:])}
    if run.code == 0:
        row |= _steady(run, meter, steps, int(given["train_batch_size"]))
        row |= {"start_up": {"all": round(run.first(r"^progress step=1 ") or 0.0, 1)}}
    return row


def _steady(run: Run, meter: "Meter", steps: int, batch: int) -> dict[str, Any]:
    reached = {int(entry["step"]): second for entry, second in zip(run.progress(), _times(run), strict=True)}
    # The last step saves the model.
    begin, end = reached[STEPS_OF_WARM_UP], reached[steps - 1]
    counted = steps - 1 - STEPS_OF_WARM_UP
    samples = [sample for sample in meter.samples if begin < sample[0] < end]
    return {
        "batch": batch,
        "steps": steps,
        "seconds_per_step": round((end - begin) / counted, 4),
        "images_per_second": round(counted * batch / (end - begin), 3),
        "peak_gpu_memory_gib": round(max(sample[1] for sample in meter.samples) / 1024, 1),
        "steady_gpu_memory_gib": round(max((sample[1] for sample in samples), default=0) / 1024, 1),
        "gpu_utilisation_percent": round(statistics.mean(sample[2] for sample in samples) if samples else 0),
        "seconds": round(run.seconds, 1),
    }


def _limited(gib: float | None) -> dict[str, str]:
    if gib is None:
        return {}
    paths = [str(REPOSITORY / "tests" / "gpu" / "memory_limit"), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(paths), "GPU_MEMORY_LIMIT_GB": str(gib)}


def _times(run: Run) -> list[float]:
    return [at for line, at in zip(run.lines, run.times, strict=True) if line.startswith("progress ")]


def _start_up(run: Run) -> dict[str, float]:
    """Seconds of each item, and all of them together until the first step is over."""
    items: dict[str, float] = {}
    before = 0.0
    for name, pattern in MARKS.items():
        at = run.first(pattern)
        if at is not None:
            items[name] = round(at - before, 1)
            before = at
    return {**items, "all": round(before, 1)}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, ready for docs/benchmarks.md; ratios are against the original recipe, where it ran."""
    lines = [
        "| recipe | batch | s/step | images/s | ratio | GPU memory, GiB | GPU busy, % | to first step, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    original = (row["images_per_second"] for row in rows if row["ok"] and row["recipe"] == RECIPES[0].name)
    first = next(original, None)
    for row in rows:
        if not row["ok"]:
            lines.append(f"| {row['recipe']} | failed: {row['failure'].splitlines()[:1]} | | | | | | |")
            continue
        ratio = f"{row['images_per_second'] / first:.1f} ×" if first else ""
        lines.append(
            f"| {row['recipe']} | {row['batch']} | {row['seconds_per_step']:.3f} | {row['images_per_second']:.2f} "
            f"| {ratio} | {row['steady_gpu_memory_gib']} | {row['gpu_utilisation_percent']} "
            f"| {row['start_up']['all']:.0f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """The exit code: 0 when every recipe ended with a proved model."""
    numbers = "numbers of RECIPES, then of PEERS, from 0, separated by commas: in this order"
    arguments = parser(__doc__, "/tmp/kohya-bench", numbers)
    arguments.add_argument("--peer-script", type=Path, help="diffusers' train_text_to_image_lora_sdxl.py")
    given = arguments.parse_args()
    bench = bench_of(given)
    given.out.mkdir(parents=True, exist_ok=True)
    measured = [partial(measure, recipe, bench, number) for number, recipe in enumerate(RECIPES)]
    if given.peer_script:
        script, trainer = given.peer_script.absolute(), given.sd_scripts.absolute()
        measured += [partial(measure_peer, script, *peer, bench, trainer) for peer in PEERS]
    if given.only:
        measured = [measured[int(number)] for number in given.only.split(",")]
    rows: list[dict[str, Any]] = []
    for measurement in measured:
        rows.append(measurement())
        print(json.dumps(rows[-1]), flush=True)
        told = {"machine": machine(), "rows": rows}
        (given.out / "recipes.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    print(json.dumps(machine()))
    print(table(rows))
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
