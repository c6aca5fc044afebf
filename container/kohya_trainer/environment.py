"""SageMaker's /opt/ml contract, read once from environment variables and SageMaker's own files.

Source: docs of SageMaker's "Run your own training container". The root is TRAINING_ROOT, so that a run
needs no /opt/ml.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kohya_trainer.errors import InvalidConfigurationError
from kohya_trainer.nvidia_smi import visible_gpus

# SageMaker mounts the training volume, or the NVMe disk that the instance has in its place, at its own folders below
# its root and at /tmp, a scratch space; all else lies on the small disk of the system. Source: docs of SageMaker's
# storage paths.
SAGEMAKERS_ROOT = Path("/opt/ml")
SAGEMAKERS_SCRATCH = Path("/tmp/training")
DEFAULT_KOHYA_VERSION = "v25.2.2"
# The CPU stand-in names itself with this file, so that a machine with GPUs rehearses without accelerate.
REHEARSAL_MARKER = "REHEARSAL.md"
# The trainers whose loop the hooks know; of any other one what it prints is all there is.
HOOKED_VERSIONS = frozenset({"v25.2.2"})
# Without any output: the slowest silent part, loading a checkpoint from a cold disk, takes a few minutes.
STALL_SECONDS = 900.0


@dataclass(frozen=True)
class Folders:
    """The folders of a job; `work` is this package's own and never uploaded."""

    root: Path

    @property
    def dataset(self) -> Path:
        return self.root / "input" / "data" / "dataset"

    @property
    def config(self) -> Path:
        return self.root / "input" / "data" / "config"

    @property
    def base_model(self) -> Path:
        return self.root / "input" / "data" / "model"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def failure(self) -> Path:
        return self.root / "output" / "failure"

    @property
    def work(self) -> Path:
        return SAGEMAKERS_SCRATCH if self.root == SAGEMAKERS_ROOT else self.root / "work"


def read_folders(variables: Mapping[str, str]) -> Folders:
    """Those below TRAINING_ROOT, or SageMaker's."""
    return Folders(Path(variables.get("TRAINING_ROOT") or SAGEMAKERS_ROOT).absolute())


@dataclass(frozen=True)
class Machine:
    """What there is to train on. `hosts` are in SageMaker's order; the first is the main one.

    `instance_type` is None outside SageMaker.
    """

    gpus: tuple[str, ...]
    cpus: int
    hosts: tuple[str, ...]
    current_host: str
    python: str
    instance_type: str | None = None
    network_interface: str | None = None

    @property
    def processes(self) -> int:
        """Of the trainer on all hosts together: one a GPU."""
        return max(1, len(self.gpus)) * len(self.hosts)

    @property
    def lacks_its_gpu(self) -> bool:
        """The instance has an NVIDIA GPU (families g and p) that the container cannot see."""
        return not self.gpus and (self.instance_type or "").startswith(("ml.g", "ml.p"))

    @property
    def rank(self) -> int:
        return self.hosts.index(self.current_host)


@dataclass(frozen=True)
class Environment:
    """Everything that a run is told from outside, typed.

    `image` by digest and `source_commit`, what the image was built of, are None outside an image. `save_every` steps
    lie between two states, instead of what a save's cost decides; after `stall_seconds` without output the trainer is
    taken to be stuck.
    """

    folders: Folders
    machine: Machine
    kohya_home: Path
    kohya_version: str
    image: str | None
    run_id: str | None
    tokenizer_cache: Path | None
    rehearsal: bool
    source_commit: str | None = None
    save_every: int | None = None
    stall_seconds: float = STALL_SECONDS

    @property
    def hooked(self) -> bool:
        return self.kohya_version in HOOKED_VERSIONS


def read_environment(variables: Mapping[str, str]) -> Environment:
    """Raises InvalidConfigurationError when KOHYA_HOME is missing or one of SageMaker's files is not JSON."""
    folders = read_folders(variables)
    home = variables.get("KOHYA_HOME")
    if not home:
        raise InvalidConfigurationError(
            "KOHYA_HOME is not set.", "Set it to the folder of kohya_ss; the training image does so."
        )
    settings = folders.root / "input" / "config"
    hyperparameters = {
        name: _unquoted(value) for name, value in _json(settings / "hyperparameters.json").items()
    }
    rehearsal = (Path(home) / REHEARSAL_MARKER).is_file()
    tokenizers = variables.get("TOKENIZER_CACHE_DIR")
    return Environment(
        folders=folders,
        machine=_machine(
            _json(settings / "resourceconfig.json"),
            gpus=() if rehearsal else chosen(visible_gpus(), variables.get("CUDA_VISIBLE_DEVICES")),
        ),
        kohya_home=Path(home).absolute(),
        kohya_version=variables.get("KOHYA_VERSION") or DEFAULT_KOHYA_VERSION,
        image=hyperparameters.get("image") or variables.get("IMAGE_DIGEST") or None,
        run_id=hyperparameters.get("run_id") or None,
        tokenizer_cache=Path(tokenizers) if tokenizers and Path(tokenizers).is_dir() else None,
        rehearsal=rehearsal,
        source_commit=variables.get("SOURCE_COMMIT") or None,
        save_every=int(_number(variables, "CHECKPOINT_EVERY_N_STEPS", 0)) or None,
        stall_seconds=_number(variables, "STALL_SECONDS", STALL_SECONDS),
    )


def chosen(gpus: tuple[str, ...], numbers: str | None) -> tuple[str, ...]:
    """Those that CUDA will show, where their numbers are given; nvidia-smi lists all of them."""
    wanted = (numbers or "").split(",")
    if not all(number.isdecimal() and int(number) < len(gpus) for number in wanted):
        return gpus
    return tuple(gpus[int(number)] for number in wanted)


def _machine(resources: Mapping[str, Any], gpus: tuple[str, ...]) -> Machine:
    current = str(resources.get("current_host", "algo-1"))
    hosts = tuple(str(host) for host in resources.get("hosts", [])) or (current,)
    if current not in hosts:
        raise InvalidConfigurationError(
            f"resourceconfig.json names the host {current}, which is not in its list of hosts.",
            "Start the training job again.",
        )
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        gpus=gpus,
        cpus=cpus,
        hosts=hosts,
        current_host=current,
        python=sys.executable,
        instance_type=resources.get("current_instance_type"),
        network_interface=resources.get("network_interface_name"),
    )


def _number(variables: Mapping[str, str], name: str, default: float) -> float:
    text = variables.get(name) or str(default)
    try:
        return float(text)
    except ValueError as error:
        raise InvalidConfigurationError(f"{name} is {text!r}, no number.", "Correct or remove it.") from error


def _json(path: Path) -> dict[str, Any]:
    """A missing file is an empty object: outside SageMaker there is none."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidConfigurationError(
            f"{path.name} is not JSON.", "Start the training job again."
        ) from error
    if not isinstance(content, dict):
        raise InvalidConfigurationError(f"{path.name} is not a JSON object.", "Start the training job again.")
    return content


def _unquoted(value: Any) -> str:
    """The SageMaker SDK encodes hyperparameters as JSON strings, the API does not: both must read the
    same.
    """
    text = str(value)
    if len(text) >= 2 and text.startswith('"') and text.endswith('"'):
        return str(json.loads(text))
    return text
