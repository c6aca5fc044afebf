"""Training roots as SageMaker lays them, for runs of `container/train` with the real trainer."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
TRAIN = REPOSITORY / "container" / "train"
PRESETS = REPOSITORY / "functions" / "fine_tuning" / "presets"
NAME = "cats"
WORDS = ("sofa", "table", "meadow", "window", "roof", "boat")
sys.path.insert(0, str(REPOSITORY / "container"))

from kohya_trainer.toml_text import to_toml

# What happens to a run in the middle; it is given the entry point's process id.
Act = Callable[[int], object]


def sends(number: int, to: Callable[[int], int] | None = None) -> Act:
    """A signal to the entry point itself, or to one of what it has started."""
    return lambda entry_point: os.kill(to(entry_point) if to else entry_point, number)


def trainer_of(entry_point: int) -> int:
    """On one GPU the entry point starts nothing else that lasts."""
    return _started_by(entry_point)[0]


def loader_of(entry_point: int) -> int:
    """A process that loads pictures for the trainer, which it was forked from."""
    return _started_by(trainer_of(entry_point))[0]


def _started_by(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "ppid=,pid=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return [int(row[1]) for row in rows if int(row[0]) == parent and "trainer_process.py" in row[-1]]


@dataclass(frozen=True)
class Bench:
    """What all runs share: KOHYA_HOME and its version, the base model, the tokenizers, and where the roots go.

    `older_home` is KOHYA_HOME of kohya_ss v22.6.2, if there is one.
    """

    work: Path
    kohya_home: Path
    base_model: Path
    tokenizers: Path
    version: str = "v25.2.2"
    older_home: Path | None = None


@dataclass(frozen=True)
class Run:
    """How `train` ended; `times` holds the second, since the start, at which each line came."""

    code: int
    lines: list[str]
    times: list[float]
    failure: str
    seconds: float

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def first(self, pattern: str) -> float | None:
        """When the first line that matches came, in seconds since the start."""
        found = (
            second for line, second in zip(self.lines, self.times, strict=True) if re.search(pattern, line)
        )
        return next(found, None)

    def progress(self) -> list[dict[str, float]]:
        """The numbers of each progress line."""
        lines = [line for line in self.lines if line.startswith("progress ")]
        pairs = [re.findall(r"(\w+)=(\S+)", line) for line in lines]
        return [{name: float(value) for name, value in pair} for pair in pairs]


@dataclass(frozen=True)
class Root:
    """One training root; `variables` are added to the environment of its runs."""

    bench: Bench
    name: str
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.bench.work / self.name

    @property
    def data(self) -> Path:
        return self.path / "input" / "data"

    @property
    def log(self) -> Path:
        """Beside the root, whose file system may be full."""
        return self.bench.work / f"{self.name}.log"

    @property
    def model(self) -> Path:
        return self.path / "model" / f"{NAME}.safetensors"

    def add_images(
        self, count: int, side: int | tuple[int, int], folder: str = "10_sks cat", suffix: str = ".jpg"
    ) -> None:
        """Smooth random pictures of `side` × `side` pixels, or of both sides; the same every time, with captions."""
        import numpy as np
        from PIL import Image

        sides = (side, side) if isinstance(side, int) else side
        random = np.random.default_rng(0)
        place = self.data / "dataset" / folder
        place.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            picture = Image.fromarray(pixels).resize(sides, Image.Resampling.BICUBIC)
            picture.save(place / f"{index:03}{suffix}", format="JPEG", quality=90)
            caption = f"sks cat number {index} on a {WORDS[index % len(WORDS)]}"
            (place / f"{index:03}.txt").write_text(caption, encoding="utf-8")

    def write_plan(self, options: dict[str, Any], **changes: Any) -> None:
        """The channels `config` and `model` for all files of the dataset as they are now."""
        dataset = self.data / "dataset"
        files = sorted(path for path in dataset.rglob("*") if path.is_file())
        layout: dict[str, list[dict[str, str]]] = {}
        inventory = []
        for path in files:
            source = path.relative_to(dataset).as_posix()
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            inventory.append({"path": source, "size": len(content), "etag": "", "sha256": digest})
            folder = path.parent.relative_to(dataset).as_posix()
            layout.setdefault(folder, []).append({"source": source, "target": path.name})
        plan = {
            "schema_version": 1,
            "run_id": f"{NAME}-0123456789ab",
            "kohya_version": self.bench.version,
            "output_name": NAME,
            "layout": [{"folder": folder, "files": entries} for folder, entries in layout.items()],
            "caption_extension": ".txt",
            "total_steps": options.get("max_train_steps"),
            "epochs": options.get("max_train_epochs"),
            "base_model": {"kind": "channel", "file": self.bench.base_model.name},
            "sample_prompts": [],
            "trigger_word": "sks",
            "licence": "CC0-1.0",
            **changes,
        }
        for channel in ("config", "model"):
            (self.data / channel).mkdir(parents=True, exist_ok=True)
        base_model = self.data / "model" / self.bench.base_model.name
        if not base_model.exists():
            try:
                os.link(self.bench.base_model, base_model)
            except OSError:  # the root is on a file system of its own
                base_model.symlink_to(self.bench.base_model)
        (self.data / "config" / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        (self.data / "config" / "config.toml").write_text(to_toml(options), encoding="utf-8")
        lines = "".join(json.dumps(entry) + "\n" for entry in inventory)
        (self.data / "config" / "inventory.jsonl").write_text(lines, encoding="utf-8")
        settings = self.path / "input" / "config"
        settings.mkdir(parents=True, exist_ok=True)
        hyperparameters = {"run_id": f"{NAME}-0123456789ab", "image": "registry/kohya@sha256:0"}
        resources = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"}
        (settings / "hyperparameters.json").write_text(json.dumps(hyperparameters), encoding="utf-8")
        (settings / "resourceconfig.json").write_text(json.dumps(resources), encoding="utf-8")

    def run(self, at: str | None = None, then: "Act | None" = None, limit: float = 400.0) -> Run:
        """The entry point in a process, as SageMaker runs it; `then` happens once a line matches `at`."""
        (self.path / "output" / "failure").unlink(missing_ok=True)
        variables = {
            **os.environ,
            "TRAINING_ROOT": str(self.path),
            "KOHYA_HOME": str(self.bench.kohya_home),
            "KOHYA_VERSION": self.bench.version,
            "TOKENIZER_CACHE_DIR": str(self.bench.tokenizers),
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.variables,
        }
        run = followed([sys.executable, str(TRAIN)], variables, self.log, at, then, limit)
        failure = self.path / "output" / "failure"
        text = failure.read_text(encoding="utf-8") if failure.exists() else ""
        return replace(run, failure=text)


_running: set["subprocess.Popen[str]"] = set()
_starting = threading.Lock()


def kill_all() -> None:
    """Every run that goes on, and with each what it has started. None is started any more."""
    _starting.acquire()
    for process in list(_running):
        process.kill()


def followed(
    command: list[str],
    variables: dict[str, str],
    log_file: Path,
    at: str | None = None,
    then: Act | None = None,
    limit: float = 400.0,
) -> Run:
    """A process with the second at which each of its lines came; `then` happens once a line matches `at`."""
    began = time.monotonic()
    with _starting:
        process = subprocess.Popen(
            command,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        _running.add(process)
    assert process.stdout is not None  # PIPE was asked for
    lines: list[str] = []
    times: list[float] = []
    # By a clock of its own: what hangs writes nothing.
    patience = threading.Timer(limit, process.kill)
    patience.start()
    try:
        with log_file.open("a", encoding="utf-8", buffering=1) as log:
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                times.append(time.monotonic() - began)
                log.write(f"{times[-1]:8.2f} {line}")
                if at and then and re.search(at, line):
                    at = None
                    then(process.pid)
        code = process.wait()
    finally:
        patience.cancel()
        process.kill()
        _running.discard(process)
    return Run(code, lines, times, "", time.monotonic() - began)


def preset(name: str) -> dict[str, Any]:
    """The options of a preset of this application."""
    return tomllib.loads((PRESETS / f"{name}.toml").read_text(encoding="utf-8"))
