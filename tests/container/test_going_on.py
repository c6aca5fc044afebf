"""An interrupted and restarted run delivers what an uninterrupted one does: the same losses, validations, pictures and
models of the same steps. With the CPU stand-in for Kohya, whose loop has the real one's order and counting.
"""

import json
import re
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from .conftest import TrainingRoot, slow_after

# 15 batches an epoch, the last epoch broken off: everything that the trainer makes besides the last model, by epochs …
BY_EPOCHS: dict[str, Any] = {
    "max_train_steps": 53,
    "validation_split": 0.25,
    "lr_scheduler": "cosine",
    "learning_rate": 1e-4,
    "sample_every_n_epochs": 1,
    "save_every_n_epochs": 1,
    "save_last_n_epochs": 2,
}
# … and by steps, which are no part of an epoch.
BY_STEPS: dict[str, Any] = {
    **{name: value for name, value in BY_EPOCHS.items() if not name.endswith("_epochs")},
    "sample_every_n_steps": 8,
    "save_every_n_steps": 8,
    "save_last_n_steps": 16,
    "validate_every_n_steps": 6,
}
# 4 steps an epoch, the last one of three batches.
ACCUMULATED = {**BY_EPOCHS, "gradient_accumulation_steps": 4, "max_train_steps": 15}
ACCUMULATED_BY_STEPS = {
    **BY_STEPS,
    "gradient_accumulation_steps": 4,
    "max_train_steps": 15,
    "save_last_n_steps": None,
    "sample_every_n_steps": 3,
    "save_every_n_steps": 3,
    "validate_every_n_steps": 4,
}
# (options, steps between states, the kind of line that the signal follows, its step, the signal)
INTERRUPTIONS = {
    "killed after an epoch's last step": (BY_EPOCHS, 5, "checkpoint", 15, signal.SIGKILL),
    "asked at an epoch's last step": (BY_EPOCHS, 100, "progress", 30, signal.SIGTERM),
    "killed at a step of everything": (BY_STEPS, 24, "checkpoint", 24, signal.SIGKILL),
    "killed between steps": (BY_STEPS, 19, "checkpoint", 38, signal.SIGKILL),
    "asked at a step of everything": (BY_STEPS, 100, "progress", 24, signal.SIGTERM),
    "accumulated": (ACCUMULATED, 4, "checkpoint", 8, signal.SIGKILL),
    "accumulated, by steps": (ACCUMULATED_BY_STEPS, 4, "checkpoint", 8, signal.SIGKILL),
}


def _plan(root: Any, options: dict[str, Any]) -> None:
    root.add_images()
    root.write_plan(**{name: value for name, value in options.items() if value is not None})
    path = root.path / "input" / "data" / "config" / "plan.json"
    more = {"validation_patience": 99, "sample_prompts": ["sks cat --w 64 --h 64"]}
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **more}))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What an uninterrupted run of these options delivers."""
    known: dict[str, dict[str, Any]] = {}

    def run(options: dict[str, Any]) -> dict[str, Any]:
        name = json.dumps(options)
        if name not in known:
            root = TrainingRoot(tmp_path_factory.mktemp("whole") / "ml")
            _plan(root, options)
            done = root.run()
            assert done.code == 0, done.output
            known[name] = _delivered(root)
        return known[name]

    return run


def _delivered(root: Any) -> dict[str, Any]:
    model = root.path / "model"
    validations = [json.loads(line) for line in (model / "validation.jsonl").read_text().splitlines()]
    told = root.provenance()
    return {
        "losses": root.losses(),
        "validations": [(entry["step"], entry["loss"]) for entry in validations],
        # Their names end with the time.
        "pictures": sorted(
            (path.name.split("_")[1], path.read_bytes()) for path in (model / "samples").iterdir()
        ),
        "models": {path.name: _opened(path) for path in model.glob("*.safetensors")},
        **{name: told[name] for name in ("steps", "best_validation", "stopped_early")},
    }


def _opened(path: Path) -> tuple[str, str, dict[str, bytes]]:
    with safe_open(path, framework="numpy") as model:
        metadata = model.metadata()
        tensors = {name: model.get_tensor(name).tobytes() for name in model.keys()}  # noqa: SIM118, it is no dict
    return metadata["ss_steps"], metadata["ss_epoch"], tensors


def _assert_same(resumed: dict[str, Any], whole: dict[str, Any]) -> None:
    for name in ("losses", "validations", "steps", "best_validation", "stopped_early"):
        assert resumed[name] == whole[name], name
    assert [step for step, _ in resumed["pictures"]] == [step for step, _ in whole["pictures"]]
    assert resumed["pictures"] == whole["pictures"]
    told = [
        {name: model[:2] for name, model in delivered["models"].items()} for delivered in (resumed, whole)
    ]
    assert told[0] == told[1]
    assert resumed["models"] == whole["models"]


def _interrupt(root: Any, kind: str, step: int, number: signal.Signals, **variables: str) -> str:
    """Leaves in checkpoints/ what lay there at any time: as S3 restores it, where nothing need have been deleted. What
    is said after the signal is returned.
    """
    checkpoints, restored = root.path / "checkpoints", root.path / "restored"
    process = root.start(**slow_after(step), **variables)
    for line in process.stdout:
        _upload(checkpoints, restored)
        if line.startswith(f"{kind} step={step} "):
            process.send_signal(number)
            break
    run = root.finish(process)
    assert run.code != 0
    _upload(checkpoints, restored)
    shutil.rmtree(checkpoints)
    restored.rename(checkpoints)
    return str(run.output)


def _upload(checkpoints: Path, restored: Path) -> None:
    for path in checkpoints.rglob("*"):
        target = restored / path.relative_to(checkpoints)
        with suppress(FileNotFoundError):  # it was removed meanwhile
            if path.is_file() and (
                not target.exists() or target.stat().st_mtime_ns != path.stat().st_mtime_ns
            ):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)


@pytest.mark.parametrize("name", INTERRUPTIONS)
def test_a_restart_makes_everything_that_an_uninterrupted_run_makes(
    name: str, new_root: Callable[[str], Any], whole_run: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    options, every, kind, step, number = INTERRUPTIONS[name]
    root = new_root("ml")
    _plan(root, options)

    _interrupt(root, kind, step, number, CHECKPOINT_EVERY_N_STEPS=str(every))
    resumed = root.run(CHECKPOINT_EVERY_N_STEPS=str(every))

    assert resumed.code == 0, resumed.output
    assert re.search(r"^resuming after step \d+ of ", resumed.output, re.MULTILINE), resumed.output
    _assert_same(_delivered(root), whole_run(options))


# Each copy takes longer than the trainer needs for the next model.
SLOW_COPIES = """
import shutil, time
copy = shutil.copyfile
def copyfile(source, target, **options):
    if str(source).endswith(".safetensors"):
        time.sleep(0.4)
    return copy(source, target, **options)
shutil.copyfile = copyfile
"""
# It has to outlast the copies of what was made before the signal, or it ends as if there had been none.
FEW_MODELS = {
    "max_train_steps": 240,
    "validation_split": 0.25,
    "save_every_n_steps": 2,
    "save_last_n_steps": 4,
}


def test_slow_copies_meet_no_removal_of_a_model_and_lose_nothing(
    new_root: Callable[[str], Any], whole_run: Callable[[dict[str, Any]], dict[str, Any]], tmp_path: Path
) -> None:
    root = new_root("ml")
    _plan(root, FEW_MODELS)
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(SLOW_COPIES)
    slow = {"CHECKPOINT_EVERY_N_STEPS": "100", "PYTHONPATH": str(tmp_path / "slow")}

    said = _interrupt(root, "progress", 20, signal.SIGTERM, **slow)
    resumed = root.run(**slow)

    assert re.search(r"^checkpoint step=2\d ", said, re.MULTILINE), said
    assert resumed.code == 0, resumed.output
    assert re.search(r"^resuming after step 2\d of ", resumed.output, re.MULTILINE), resumed.output
    assert "did not come back whole" not in resumed.output
    _assert_same(_delivered(root), whole_run(FEW_MODELS))
