"""What judging a dataset costs: images a second against two yardsticks, memory, and the plan of a large dataset.

    ./dev bench preflight [--sd-scripts DIR --trainer-python PYTHON]

One run, one process a figure, one core each:
- images a second of the inspecting Lambda's own step, of a bare Pillow loop that opens and decodes the same bytes and,
  where a checkout of sd-scripts and a Python with the trainer's packages are given, of the trainer's own scan of the
  same folder, which reads headers and captions and decodes nothing;
- the highest resident memory of one worker that inspects 100, 1,000 and 10,000 images, shard by shard;
- seconds and memory of take_inventory and plan_run for 100,000 images with captions.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "functions"), str(ROOT)]

from PIL import Image

from fine_tuning.aws.objects import Objects
from fine_tuning.inventory import InventoryFile, ListedObject, UnfinishedUpload
from fine_tuning.settings import Settings
from fine_tuning.steps.inspecting import inspect_shard
from fine_tuning.steps.planning import plan_run
from fine_tuning.steps.taking_inventory import take_inventory
from tests.functions_data import RUN
from tests.judging import SETTINGS, NoRecords

COMPARED = 300  # images
ROUNDS = 3
WORKERS = (100, 1_000, 10_000)
PLANNED = 100_000
SHARD_SIZE = "200"  # the template's default
CAPTION = b"a photo of sks cat, sitting on a wooden table by a window, morning light"
NOW = datetime(2026, 9, 1, tzinfo=UTC)


class Generated(Objects):
    """A dataset of any size that takes no room: a few pictures, each with bytes of its own at the end."""

    def __init__(self, images: int) -> None:
        super().__init__(RUN.bucket)
        self.images = images
        self.kept: dict[str, bytes] = {
            RUN.manifest_key: b'{"version": 1, "config": {"max_train_steps": 1000}}'
        }
        self.pictures = [_picture(seed) for seed in range(8)]

    def read(self, key: str, version: str | None = None) -> bytes:
        if key in self.kept:
            return self.kept[key]
        if key.endswith(".txt"):
            return CAPTION
        number = int(Path(key).stem)
        # A comment behind the end of a JPEG is read over; the digest is another one.
        return self.pictures[number % len(self.pictures)] + number.to_bytes(4, "big")

    def write(self, key: str, content: bytes, content_type: str = "") -> None:
        self.kept[key] = content

    def list_dataset(self, prefix: str) -> list[ListedObject]:
        paths = [f"1_sks cat/{n:06}{suffix}" for n in range(self.images) for suffix in (".jpg", ".txt")]
        return [ListedObject(_file(path), NOW - timedelta(hours=1)) for path in paths]

    def unfinished_uploads(self, prefix: str) -> list[UnfinishedUpload]:
        return []


def _file(path: str) -> InventoryFile:
    return InventoryFile(
        path, 300_000, hashlib.md5(path.encode()).hexdigest(), "version-id-of-thirty-two-chars-00"
    )


def _picture(seed: int) -> bytes:
    """Noise under a gradient, 1024 × 1024, about 300 kB: as hard to decode as a photograph of that size."""
    noise = Image.effect_noise((1024, 1024), 40 + seed)
    picture = Image.merge("RGB", (noise, Image.linear_gradient("L").resize((1024, 1024)), noise.rotate(90)))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=75)
    return content.getvalue()


def compare(folder: Path, trainer: tuple[Path, str] | None) -> None:
    dataset = Generated(COMPARED)
    shard = RUN.shard_key(0)
    files = [listed.file.as_document() for listed in dataset.list_dataset("")]
    dataset.kept[shard] = json.dumps({"files": files}).encode()
    contents = [dataset.read(f"{n:06}.jpg") for n in range(COMPARED)]

    def bare() -> None:
        for content in contents:
            with Image.open(io.BytesIO(content)) as image:
                image.load()

    contenders: dict[str, Callable[[], Any]] = {
        "bare Pillow loop (open, load)": bare,
        "inspect_shard": lambda: inspect_shard(RUN, shard, dataset),
    }
    shortest = dict.fromkeys(contenders, float("inf"))
    for _ in range(ROUNDS):  # by turns, so that a busy moment of the machine hits both
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            shortest[name] = min(shortest[name], time.perf_counter() - began)
    base = shortest["bare Pillow loop (open, load)"]
    print(
        f"\n{COMPARED} images of 1 megapixel, {len(contents[0]) // 1000} kB, one core; the shortest of {ROUNDS}:"
    )
    for name, seconds in shortest.items():
        print(f"  {name:32} {COMPARED / seconds:7.1f} images/s  {base / seconds:5.2f} of the bare loop")
    if trainer is None:
        print("  the trainer's own scan           not measured: give --sd-scripts and --trainer-python")
        return
    images = folder / "train" / "1_sks cat"
    images.mkdir(parents=True)
    for number, content in enumerate(contents):
        (images / f"{number:06}.jpg").write_bytes(content)
        (images / f"{number:06}.txt").write_bytes(CAPTION)
    program = [trainer[1], str(Path(__file__).with_name("trainer_scan.py")), str(trainer[0]), str(folder)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    seconds = float(done.stdout.splitlines()[-1])
    print(
        f"  {'the trainer scan (headers only)':32} {COMPARED / seconds:7.1f} images/s  {base / seconds:5.2f}"
    )


def worker(images: int) -> None:
    """Every shard in one process, as a Lambda that stays warm; the parent reads the last line."""
    dataset = Generated(images)
    answer = _inventory(dataset)
    for shard in answer["shards"]:
        dataset.kept.pop(inspect_shard(RUN, shard["key"], dataset)["key"])
    print(json.dumps({"peak_mib": _peak_mib()}))


def planner(images: int) -> None:
    """take_inventory and plan_run of a large dataset whose results are there."""
    dataset = Generated(images)
    began = time.perf_counter()
    answer = _inventory(dataset)
    inventory = {"seconds": time.perf_counter() - began, "peak_mib": _peak_mib()}
    keys = []
    for number, shard in enumerate(answer["shards"]):
        listed = json.loads(dataset.kept[shard["key"]])["files"]
        results = [{**file, **_inspected(file["path"])} for file in listed]
        keys.append(f"{RUN.prefix}inspection/result-{number:04d}.json")
        dataset.kept[keys[-1]] = json.dumps({"files": results, "findings": []}).encode()
    del answer
    began = time.perf_counter()
    decision = plan_run(RUN, keys, _settings(), dataset, NoRecords())
    seconds = time.perf_counter() - began
    assert decision["decision"] == "accepted", dataset.kept[RUN.report_key][:1000]
    print(
        json.dumps(
            {
                "inventory": inventory,
                "plan": {"seconds": seconds, "peak_mib": _peak_mib()},
                "shards": len(keys),
                "results_bytes": len(json.dumps([{"key": key} for key in keys])),
                "plan_json_mib": len(dataset.kept[RUN.plan_key]) / 2**20,
                "held_by_the_bench_mib": sum(map(len, dataset.kept.values())) / 2**20,
            }
        )
    )


def _inspected(path: str) -> dict[str, Any]:
    digest = hashlib.sha256(path.encode()).hexdigest()
    if path.endswith(".txt"):
        return {"sha256": digest, "kind": "caption", "tokens": 20, "lacks_trigger": None}
    return {"sha256": digest, "kind": "image", "width": 1024, "height": 1024}


def _inventory(dataset: Generated) -> dict[str, Any]:
    return take_inventory(RUN, NOW - timedelta(hours=1), NOW, _settings(), dataset, NoRecords())


def _settings() -> Settings:
    # A stack that lets so large a dataset through.
    large = {"TRAINING_VOLUME_GB": "200", "MAX_TRAINING_RUNTIME_SECONDS": "604800"}
    return Settings({**SETTINGS, **large, "SHARD_SIZE": SHARD_SIZE})


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _in_a_process(name: str, images: int) -> dict[str, Any]:
    program = [sys.executable, __file__, name, str(images)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in ("worker", "planner"):
        {"worker": worker, "planner": planner}[sys.argv[1]](int(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sd-scripts", type=Path, help="a checkout at the commit of KOHYA's version")
    parser.add_argument(
        "--trainer-python", default=sys.executable, help="a Python with the trainer's packages"
    )
    options = parser.parse_args()
    trainer = (options.sd_scripts.resolve(), options.trainer_python) if options.sd_scripts else None
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), trainer)
    print("\nhighest resident memory of one worker, MiB:")
    for images in WORKERS:
        print(f"  {images:7,} images {_in_a_process('worker', images)['peak_mib']:7.0f}", flush=True)
    large = _in_a_process("planner", PLANNED)
    print(f"\n{PLANNED:,} images with captions, {large['shards']} shards:")
    for step in ("inventory", "plan"):
        print(
            f"  {step:10} {large[step]['seconds']:6.1f} s  {large[step]['peak_mib']:6.0f} MiB at most so far"
        )
    print(f"  of which the bench itself holds {large['held_by_the_bench_mib']:.0f} MiB in place of S3")
    print(
        f"  plan.json {large['plan_json_mib']:.1f} MiB; results in the state {large['results_bytes']:,} bytes"
    )


if __name__ == "__main__":
    main()
