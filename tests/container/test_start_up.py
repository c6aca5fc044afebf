"""What happens before the first step, with stand-ins for torch and the trainer's modules."""

import gc
import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kohya_trainer.acceleration import start_up
from kohya_trainer.environment import Machine
from kohya_trainer.execution import VARIABLE, executed
from kohya_trainer.inputs import Inputs
from kohya_trainer.options import load_table

GPU = "cuda:0"
TENSORS = {"model.diffusion_model.out": 1}


@pytest.fixture
def base_model(tmp_path: Path) -> Path:
    path = tmp_path / "sdxl.safetensors"
    path.write_bytes(b"tensors")
    return path


class Trainer:
    """Loads as the trainer does: each tensor in turn, with accelerate's emptying after each."""

    def __init__(self, path: Path) -> None:
        self.emptied, self.read, self.path = 0, 0, str(path)
        self.torch = SimpleNamespace(cuda=SimpleNamespace(empty_cache=self._empty))
        self.model_util = SimpleNamespace(load_file=self._load_file)
        self.train_util = SimpleNamespace(load_target_model=self._load)

    def _empty(self) -> None:
        self.emptied += 1

    def _load_file(self, filename: str, device: str = "cpu") -> dict[str, int]:
        self.read += 1
        return {"read by the trainer": 2}

    def _load(self, device: str) -> dict[str, int]:
        tensors: dict[str, int] = self.model_util.load_file(self.path, device=device)
        for _ in tensors:
            self.torch.cuda.empty_cache()
        return tensors

    def hand_over(self, early: start_up.EarlyCheckpoint) -> None:
        start_up.hand_over(early, self.model_util, self.train_util, self.torch)


def test_the_trainer_gets_the_tensors_that_were_read_while_it_was_imported(base_model: Path) -> None:
    trainer, go = Trainer(base_model), threading.Event()

    def read() -> dict[str, Any]:
        go.wait(5)
        return dict(TENSORS)

    early = start_up.EarlyCheckpoint(str(base_model), read)
    trainer.hand_over(early)
    threading.Timer(0.05, go.set).start()

    assert trainer.train_util.load_target_model(GPU) == TENSORS
    assert trainer.read == 0
    # Once after all tensors, not once for each.
    assert trainer.emptied == 1
    assert trainer.torch.cuda.empty_cache == trainer._empty
    assert early.take(str(base_model), GPU) is None


def test_a_link_to_the_base_model_is_the_base_model(base_model: Path) -> None:
    link = base_model.with_name("linked.safetensors")
    link.symlink_to(base_model)

    early = start_up.EarlyCheckpoint(str(link), lambda: dict(TENSORS))

    assert early.take(str(base_model), GPU) == TENSORS


@pytest.mark.parametrize(("file", "device"), [("vae.safetensors", GPU), ("sdxl.safetensors", "cpu")])
def test_another_file_or_the_cpu_is_left_to_the_trainer(base_model: Path, file: str, device: str) -> None:
    trainer = Trainer(base_model.with_name(file))
    early = start_up.EarlyCheckpoint(str(base_model), lambda: dict(TENSORS))
    trainer.hand_over(early)

    assert trainer.train_util.load_target_model(device) == {"read by the trainer": 2}
    # Nothing is held after the trainer has loaded.
    assert early.take(str(base_model), GPU) is None


def test_what_fails_early_is_read_by_the_trainer(base_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def read() -> dict[str, Any]:
        raise RuntimeError("out of memory")

    trainer = Trainer(base_model)
    trainer.hand_over(start_up.EarlyCheckpoint(str(base_model), read))

    assert trainer.train_util.load_target_model(GPU) == {"read by the trainer": 2}
    assert "not read early (RuntimeError: out of memory)" in capfd.readouterr().out


def test_the_cache_is_emptied_again_after_a_load_that_fails(base_model: Path) -> None:
    trainer = Trainer(base_model)
    early = start_up.EarlyCheckpoint(str(base_model), lambda: {"": 1})
    trainer.train_util.load_target_model = lambda: 1 // 0
    trainer.hand_over(early)

    with pytest.raises(ZeroDivisionError):
        trainer.train_util.load_target_model()

    assert trainer.torch.cuda.empty_cache == trainer._empty
    assert early.take(str(base_model), GPU) is None


@pytest.mark.parametrize("name", [None, "model.ckpt", "missing.safetensors"])
def test_only_a_safetensors_that_is_there_is_read_early(tmp_path: Path, name: str | None) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"pickle")

    assert start_up.read_early(str(tmp_path / name) if name else None) is None


def test_imports_are_done_without_the_collector_and_never_looked_through_again() -> None:
    before = gc.get_freeze_count()
    try:
        with start_up.importing():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()


@pytest.mark.parametrize(
    ("memory", "changes", "prompts", "straight", "once"),
    [
        ("80", {}, (), True, True),
        ("80", {}, ("sks cat",), True, False),
        ("80", {"validation_split": 0.1}, (), True, False),
        ("80", {"disable_mmap_load_safetensors": True}, (), False, True),
        ("8", {}, (), False, True),
    ],
)
def test_the_trainer_is_told_what_may_be_shortened(
    memory: str, changes: dict[str, Any], prompts: tuple[str, ...], straight: bool, once: bool
) -> None:
    machine = Machine(gpus=("GPU",), cpus=16, hosts=("algo-1",), current_host="algo-1", python="python3")
    options = {"network_train_unet_only": True, "pretrained_model_name_or_path": "/model/a.safetensors"}
    inputs = Inputs(options, plan={"chosen_by_user": []}, sample_prompts=prompts)
    run = executed(
        {**options, **changes}, inputs, load_table("v25.2.2"), machine, {"GPU_MEMORY_LIMIT_GB": memory}
    )

    settings = json.loads(run.variables[VARIABLE])
    assert settings["base_model"] == "/model/a.safetensors"
    assert (settings["straight"], settings["text_encoders_once"]) == (straight, once)
