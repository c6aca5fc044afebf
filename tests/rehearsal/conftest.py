"""The stand-in for Kohya, called as Kohya is: a script, a TOML and a folder of images."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "local" / "rehearsal" / "sd-scripts" / "sdxl_train_network.py"
sys.path.insert(0, str(SCRIPT.parent))


@dataclass(frozen=True)
class Trainer:
    """One dataset and the runs over it; each run has its own output folder below `folder`."""

    folder: Path

    def add(self, subset: str, sizes: list[tuple[int, int]]) -> None:
        """Colour gradients of the given (width, height), with captions."""
        place = self.folder / "images" / subset
        place.mkdir(parents=True)
        for index, (width, height) in enumerate(sizes):
            rows, columns = np.mgrid[0:height, 0:width]
            red = 127 + 127 * np.sin(rows / 20 + index)
            pixels = np.stack([red, 255 * columns / width, 255 * rows / height], axis=2).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{index}.png")
            (place / f"{index}.caption").write_text(f"sks cat, number {index}", encoding="utf-8")

    def run(self, output: str, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Options go into the TOML, arguments onto the command line."""
        settings = {
            "train_data_dir": str(self.folder / "images"),
            "output_dir": str(self.folder / output),
            "output_name": "cats",
            "resolution": "256,256",
            "enable_bucket": True,
            "caption_extension": ".caption",
            "train_batch_size": 2,
            "max_train_steps": 10,
            "learning_rate": 1e-3,
            "network_dim": 8,
            "network_alpha": 4.0,
            "seed": 3,
            **options,
        }
        config = self.folder / f"{output}.toml"
        lines = (
            f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}\n"
            for name, value in settings.items()
        )
        config.write_text("".join(lines), encoding="utf-8")
        command = [sys.executable, str(SCRIPT), "--config_file", str(config), *arguments]
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False)
        # Not in text mode, which would turn the bar's carriage returns into newlines.
        return subprocess.CompletedProcess(
            command, done.returncode, done.stdout.decode(), done.stderr.decode()
        )


def losses(done: "subprocess.CompletedProcess[str]") -> list[float]:
    """The average loss after each step, as the bar told it."""
    told = re.findall(r"\| (\d+)/\d+ \[[^\]]*avr_loss=([^\]]+)\]", done.stderr)
    return list({int(step): float(loss) for step, loss in told}.values())


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    """Four images of two shapes, ten repeats: 40 examples."""
    made = Trainer(tmp_path)
    made.add("10_sks cat", [(128, 96), (128, 96), (96, 128), (96, 128)])
    return made
