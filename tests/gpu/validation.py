"""A held-out part of the dataset: the best weights are kept, and a training that gets no better by it ends early."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from checks import CHECKED, STEPS, told_by
from report import Result
from roots import Bench, Root, Run, preset

# A batch or two an epoch, so that there are many validations.
SPLIT = {"validation_split": 0.34, "validation_seed": 1}
# Eight steps, then a rate of nothing, so that the validation stays where it is. No rate makes it worse for sure: with
# random weights it fell at a rate of 1 still.
NOTHING_MORE = {"lr_scheduler": "piecewise_constant", "lr_scheduler_args": ["step_rules='1:8,0'"]}


def validated(bench: Bench) -> Iterator[Result]:
    """A validation split, regularization images and privacy, in one run."""
    root = Root(bench, "validated")
    root.add_images(6, 512, folder="1_sks cat")
    root.add_images(3, 512, folder="reg/1_cat")
    steps = {"max_train_steps": STEPS // 2, "learning_rate": 1e-3}
    options = {**preset("sdxl-character"), **CHECKED, **SPLIT, **steps}
    # So patient that it goes on to its last step, whatever the validations are.
    root.write_plan(options, privacy=True, validation_patience=STEPS)
    run = root.run()
    yield Result("validation, regularization images, privacy", run.code == 0, told_by(run), run.seconds)
    if run.code != 0:
        return
    from safetensors import safe_open

    provenance = (root.path / "model" / "provenance.json").read_text(encoding="utf-8")
    facts, told = json.loads(provenance), validations(run)
    best = facts["best_validation"]
    files = sorted(path.name for path in (root.path / "model").iterdir())
    with safe_open(str(root.model), framework="numpy") as model:
        texts = {**model.metadata(), "provenance.json": provenance}
    names = [name for name, text in texts.items() if "sks cat" in text or "meadow" in text]
    regularization = re.search(r"num reg images.*: (\d+)", run.text)
    delivered = root.model.with_name(f"{root.model.stem}-best.safetensors")
    yield Result(
        "the best validation is kept",
        len(told) > 1
        and bool(best)
        and told[best["step"]] == min(told.values())
        and steps_of(delivered if delivered.name in files else root.model) == best["step"]
        and facts["steps"] == steps["max_train_steps"],
        f"{len(told)} validations, best {best}, {facts['steps']} steps",
    )
    yield Result(
        "regularization images are trained with",
        regularization is not None and int(regularization[1]) > 0,
        f"{regularization[1] if regularization else 'no'} of them",
    )
    yield Result("a private run's model names neither captions nor folders", not names, f"named in: {names}")


def ended_early(bench: Bench) -> Iterator[Result]:
    """Once nothing more is learned no validation is better, and what was best before is delivered."""
    root = Root(bench, "early")
    root.add_images(6, 512, folder="1_sks cat")
    root.write_plan({**preset("sdxl-character"), **CHECKED, **SPLIT, **NOTHING_MORE}, validation_patience=1)
    run = root.run()
    name = "a training whose validation gets no better ends early, with its best weights"
    if run.code != 0:
        yield Result(name, False, told_by(run), run.seconds)
        return
    facts = json.loads((root.path / "model" / "provenance.json").read_bytes())
    best = facts["best_validation"]
    ended = "no better validation in 1: the training ends" in run.lines
    passed = facts["stopped_early"] and ended and best["step"] < facts["steps"] < STEPS
    passed = passed and steps_of(root.model) == best["step"]
    told = ", ".join(f"{step}: {loss:g}" for step, loss in validations(run).items())
    detail = f"ended after step {facts['steps']} of {STEPS}, delivered step {best['step']}; {told}"
    yield Result(name, passed, detail, run.seconds)


def validations(run: Run) -> dict[int, float]:
    """Step → loss."""
    found = re.findall(r"^validation step=(\d+) validation_loss=(\S+)$", run.text, re.MULTILINE)
    return {int(step): float(loss) for step, loss in found}


def steps_of(model: Path) -> int:
    """As the trainer wrote it into the file."""
    from safetensors import safe_open

    with safe_open(str(model), framework="numpy") as opened:
        return int(opened.metadata()["ss_steps"])
