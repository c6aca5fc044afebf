"""How a run ends whose trainer stops too early, too late or in a crash, and one whose model is nothing."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kohya_trainer.trainer_events import encode


def test_a_model_of_zeros_fails_the_run(root: Any) -> None:
    root.write_plan(learning_rate=0.0)

    run = root.run()

    assert run.code == 1
    assert "All up-weights of the model are zero" in run.failure
    assert not (root.path / "model").exists()


@pytest.fixture
def ending_kohya(root: Any, fake_kohya: Callable[[str], Path]) -> Callable[..., Path]:
    """A KOHYA_HOME whose trainer tells of one step of 12, writes the model of a good run, then does as it is given."""
    assert root.run().code == 0
    kept = (root.path / "model" / "cats.safetensors").rename(root.path / "good.safetensors")
    shutil.rmtree(root.path / "checkpoints")
    shutil.rmtree(root.path / "model")

    def make(last: int, then: str = "") -> Path:
        facts = {
            "learning_rate": 0.1,
            "seconds": 0.1,
            "images": 2,
            "files": [],
            "more_files": 0,
            "gpu_gib": None,
        }
        event = encode("step", step=last, total=12, loss=0.5, **facts)
        return fake_kohya(
            "import os, shutil, sys, time, tomllib\n"
            "model = tomllib.load(open(sys.argv[2], 'rb'))['output_dir'] + '/cats.safetensors'\n"
            f"print({event!r}, flush=True)\n"
            f"shutil.copy({str(kept)!r}, model)\n" + then
        )

    return make


@pytest.mark.parametrize("last", [1, 13])
def test_a_trainer_that_makes_fewer_or_more_steps_fails_though_it_wrote_a_model(
    root: Any, ending_kohya: Callable[..., Path], last: int
) -> None:
    run = root.run(ending_kohya(last))

    assert run.code == 1
    assert run.failure.startswith(f"The trainer stopped after step {last} of 12.")


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ("os.abort()", r"The trainer ended with exit code -6\."),
        ("time.sleep(60)", r"The trainer wrote nothing for \d+ seconds after step 12 "),
    ],
)
def test_a_trainer_that_crashes_or_hangs_when_all_is_made_loses_nothing(
    root: Any, ending_kohya: Callable[..., Path], then: str, told: str
) -> None:
    """As in the libraries through which several GPUs speak."""
    run = root.run(ending_kohya(12, then), STALL_SECONDS="5")  # longer than a start on a busy machine

    assert run.code == 0, run.output
    assert re.search(f"note: the training was over when this happened: {told}", run.output)
    assert root.provenance()["steps"] == 12


@pytest.mark.parametrize(("last", "then"), [(11, "os.abort()"), (12, "os.truncate(model, 2000)\nos.abort()")])
def test_a_trainer_that_crashes_before_all_is_made_has_crashed(
    root: Any, ending_kohya: Callable[..., Path], last: int, then: str
) -> None:
    run = root.run(ending_kohya(last, then))

    assert run.code == 1
    assert run.failure.startswith("The trainer ended with exit code -6.")


def test_a_failure_of_the_container_beside_the_trainer_quotes_what_the_trainer_said(
    root: Any, fake_kohya: Callable[[str], Path]
) -> None:
    event = encode("state", step=3, path="/nowhere", seconds=0.1, batches=4, asked=False)
    home = fake_kohya(f"print('the last that was heard', flush=True)\nprint({event!r}, flush=True)\n")

    run = root.run(home)

    assert run.code == 1
    assert run.failure.startswith("The training container itself failed (FileNotFoundError: ")
    assert "the last that was heard" in run.failure
    assert "in _keep" in run.failure
    assert "Traceback" in run.output
