"""What a run is to do: plan.json, config.toml and inventory.jsonl, or the older layout's single TOML."""

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kohya_trainer.environment import Folders
from kohya_trainer.errors import InvalidConfigurationError

SCHEMA_VERSION = 1
# Validations without a better one after which a training ends, where the plan names no number.
PATIENCE = 5
OLDER_CONFIGURATION = "kohya-sdxl-config.toml"
_UPLOAD_AGAIN = "Drop the dataset again, so that a new plan is made."


@dataclass(frozen=True)
class InspectedFile:
    """A file as it was when the dataset was judged; `path` is relative to the dataset, `size` in bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Placement:
    """A dataset file and the place at which the trainer must see it (`folder/target`)."""

    folder: str
    source: str
    target: str


@dataclass(frozen=True)
class BaseModel:
    """`kind` hub: `id` with `revision` and `file`, each optional; channel: `file` inside the model
    channel.
    """

    kind: str
    id: str | None = None
    revision: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Inputs:
    """The configuration as flat Kohya options, and the plan where there is one (`placements` is None
    without).
    """

    config: dict[str, Any]
    plan: dict[str, Any] = field(default_factory=dict)
    placements: tuple[Placement, ...] | None = None
    inventory: dict[str, InspectedFile] = field(default_factory=dict)
    base_model: BaseModel | None = None
    sample_prompts: tuple[str, ...] = ()

    @property
    def older_layout(self) -> bool:
        return self.placements is None

    @property
    def private(self) -> bool:
        """Prompts, tags and the names of folders stay out of what is delivered and mailed."""
        return bool(self.plan.get("privacy", False))

    @property
    def patience(self) -> int:
        """Validations without a better one after which the training ends."""
        return int(self.plan.get("validation_patience", PATIENCE))


def load_inputs(folders: Folders) -> Inputs:
    """Raises InvalidConfigurationError when something is missing or malformed."""
    if (folders.config / "plan.json").is_file():
        return _planned(folders.config)
    if folders.config.is_dir() and any(folders.config.iterdir()):
        raise InvalidConfigurationError("The config channel holds no plan.json.", _UPLOAD_AGAIN)
    return Inputs(config=read_options(folders.dataset / OLDER_CONFIGURATION))


def read_options(path: Path) -> dict[str, Any]:
    """Kohya options of a TOML file. Sections are merged into one level, as Kohya's own reader does."""
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError as error:
        raise InvalidConfigurationError(
            f"There is neither a config channel nor {path.name} in the dataset.",
            f"Put a {OLDER_CONFIGURATION} with Kohya options at the top of the dataset.",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfigurationError(f"{path.name} is not TOML: {error}.", "Correct that line.") from error
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat


def _planned(folder: Path) -> Inputs:
    try:
        plan = json.loads((folder / "plan.json").read_bytes())
        if plan.get("schema_version") != SCHEMA_VERSION:
            raise InvalidConfigurationError(
                f"plan.json has schema_version {plan.get('schema_version')}, not {SCHEMA_VERSION}.",
                "Push the container of this deployment, or drop the dataset again.",
            )
        return Inputs(
            config=read_options(folder / "config.toml"),
            plan=plan,
            placements=tuple(
                Placement(folder=entry["folder"], source=file["source"], target=file["target"])
                for entry in plan["layout"]
                for file in entry["files"]
            ),
            inventory={file.path: file for file in _inventory(folder / "inventory.jsonl")},
            base_model=_base_model(plan.get("base_model")),
            sample_prompts=tuple(str(prompt) for prompt in plan.get("sample_prompts") or ()),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidConfigurationError(
            f"The run's inputs cannot be read ({type(error).__name__}: {error}).", _UPLOAD_AGAIN
        ) from error


def _inventory(path: Path) -> list[InspectedFile]:
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines if line.strip()]
    return [
        InspectedFile(path=entry["path"], size=int(entry["size"]), sha256=entry["sha256"])
        for entry in entries
    ]


def _base_model(entry: dict[str, Any] | None) -> BaseModel | None:
    if not entry:
        return None
    return BaseModel(
        kind=entry["kind"], id=entry.get("id"), revision=entry.get("revision"), file=entry.get("file")
    )
