"""A training root as SageMaker makes it, filled with small real images, and the entry point run in a
process.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kohya_trainer.toml_text import to_toml

REPOSITORY = Path(__file__).resolve().parents[2]
TRAIN = REPOSITORY / "container" / "train"
REHEARSAL = REPOSITORY / "local" / "rehearsal"

OPTIONS: dict[str, Any] = {
    "network_module": "networks.lora",
    "network_dim": 8,
    "network_alpha": 4.0,
    "network_train_unet_only": True,
    "resolution": "256,256",
    "enable_bucket": True,
    "train_batch_size": 2,
    "max_train_steps": 12,
    "learning_rate": 1e-3,
    "caption_extension": ".txt",
    "seed": 11,
}


def slow_after(step: int) -> dict[str, str]:
    """Variables with which the steps after this one are so slow that a signal which follows its line meets the next."""
    return {"REHEARSAL_STEP_SECONDS": "0.5", "REHEARSAL_QUICK_STEPS": str(step)}


@dataclass(frozen=True)
class Run:
    """How `train` ended: `failure` is output/failure's text."""

    code: int
    output: str
    failure: str


@dataclass(frozen=True)
class TrainingRoot:
    """Builds inputs and runs the entry point below one folder."""

    path: Path

    @property
    def dataset(self) -> Path:
        return self.path / "input" / "data" / "dataset"

    def add_images(self, folder: str = "10_sks cat", count: int = 4) -> None:
        """Photograph-like gradients, each with a caption beside it."""
        place = self.dataset / folder
        place.mkdir(parents=True, exist_ok=True)
        rows, columns = np.mgrid[0:96, 0:128] / 128
        for index in range(count):
            red = 127 + 120 * np.sin(6 * rows + index)
            pixels = np.stack([red, 255 * columns, 255 * (1 - rows)], axis=2).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{index}.png")
            (place / f"{index}.txt").write_text(f"sks cat number {index}", encoding="utf-8")

    def write_plan(self, **options: Any) -> None:
        """The config channel for all files of the dataset as they are now."""
        files = sorted(path for path in self.dataset.rglob("*") if path.is_file())
        folders: dict[str, list[dict[str, str]]] = {}
        inventory = []
        for path in files:
            name = path.relative_to(self.dataset).as_posix()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            inventory.append({"path": name, "size": path.stat().st_size, "etag": "", "sha256": digest})
            entry = {"source": name, "target": path.name}
            folders.setdefault(path.parent.relative_to(self.dataset).as_posix(), []).append(entry)
        config = {**OPTIONS, **options}
        plan = {
            "schema_version": 1,
            "run_id": "cats-0123456789ab",
            "kohya_version": "v25.2.2",
            "output_name": "cats",
            "layout": [{"folder": name, "files": entries} for name, entries in folders.items()],
            "caption_extension": ".txt",
            "total_steps": config["max_train_steps"],
            "epochs": config.pop("planned_epochs", None),
            "base_model": {
                "kind": "hub",
                "id": "stabilityai/stable-diffusion-xl-base-1.0",
                "revision": "4621659",
            },
            "sample_prompts": ["sks cat, on a sofa"],
            "trigger_word": "sks",
            "licence": "CC0-1.0",
        }
        channel = self.path / "input" / "data" / "config"
        channel.mkdir(parents=True, exist_ok=True)
        (channel / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        (channel / "config.toml").write_text(to_toml(config), encoding="utf-8")
        lines = "".join(json.dumps(entry) + "\n" for entry in inventory)
        (channel / "inventory.jsonl").write_text(lines, encoding="utf-8")
        settings = self.path / "input" / "config"
        settings.mkdir(parents=True, exist_ok=True)
        hyperparameters = {"run_id": "cats-0123456789ab", "image": '"registry/kohya@sha256:abc"'}
        (settings / "hyperparameters.json").write_text(json.dumps(hyperparameters), encoding="utf-8")
        resources = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"}
        (settings / "resourceconfig.json").write_text(json.dumps(resources), encoding="utf-8")

    def start(self, kohya_home: Path = REHEARSAL, **variables: str) -> "subprocess.Popen[str]":
        """The entry point as SageMaker runs it: the file itself, found by its shebang."""
        interpreter = Path(sys.executable).parent
        environment: Mapping[str, str] = {
            "PATH": f"{interpreter}{os.pathsep}{os.environ['PATH']}",
            "TRAINING_ROOT": str(self.path),
            "KOHYA_HOME": str(kohya_home),
            "KOHYA_VERSION": "v25.2.2",
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        }
        return subprocess.Popen(
            [TRAIN],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )

    def finish(self, process: "subprocess.Popen[str]") -> Run:
        """Waits for the end and reads what was left behind."""
        output, _ = process.communicate(timeout=240)  # a loaded machine's
        failure = self.path / "output" / "failure"
        text = failure.read_text(encoding="utf-8") if failure.exists() else ""
        return Run(code=process.returncode, output=output, failure=text)

    def run(self, kohya_home: Path = REHEARSAL, **variables: str) -> Run:
        """Starts and finishes."""
        return self.finish(self.start(kohya_home, **variables))

    def run_until(self, pattern: str, number: signal.Signals, **start: Any) -> Run:
        """Starts and sends the signal once a line matches; how it ended."""
        process = self.start(**start)
        assert process.stdout is not None  # PIPE was asked for
        read = []
        for line in process.stdout:
            read.append(line)
            if re.search(pattern, line):
                process.send_signal(number)
                break
        run = self.finish(process)
        return replace(run, output="".join(read) + run.output)

    def losses(self) -> list[tuple[int, float]]:
        """(step, loss) of the delivered history."""
        lines = (self.path / "model" / "loss.jsonl").read_text(encoding="utf-8").splitlines()
        return [(entry["step"], entry["loss"]) for entry in map(json.loads, lines)]

    def provenance(self) -> dict[str, Any]:
        """The delivered provenance.json."""
        content: dict[str, Any] = json.loads((self.path / "model" / "provenance.json").read_bytes())
        return content


@pytest.fixture
def new_root(tmp_path: Path) -> Callable[[str], TrainingRoot]:
    """Roots side by side, for runs that are compared."""
    return lambda name: TrainingRoot(tmp_path / name)


@pytest.fixture
def root(new_root: Callable[[str], TrainingRoot]) -> TrainingRoot:
    """A planned run that would succeed."""
    made = new_root("ml")
    made.add_images()
    made.write_plan()
    return made


@pytest.fixture
def fake_kohya(tmp_path: Path) -> Callable[[str], Path]:
    """A KOHYA_HOME whose trainer is the given Python; its log and exit code provoke a failure class."""

    def make(source: str) -> Path:
        home = tmp_path / "kohya"
        # What the hooks reach into; this trainer does not use it.
        for package in ("library", "rehearsal_trainer"):
            shutil.copytree(REHEARSAL / "sd-scripts" / package, home / "sd-scripts" / package)
        (home / "REHEARSAL.md").touch()
        (home / "sd-scripts" / "sdxl_train_network.py").write_text(source, encoding="utf-8")
        return home

    return make
