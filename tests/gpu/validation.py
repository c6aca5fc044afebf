"""A held-out part of the dataset: the best weights are kept, and a training that gets no better by it ends early."""

import json
import re
from pathlib import Path

from checks import CHECKED, STEPS, Result, told_by
from roots import Bench, Root, preset

# A batch or two an epoch, so that there are many validations.
SPLIT = {"validation_split": 0.34, "validation_seed": 1}
# Eight steps, then a rate of nothing, so that the validation stays where it is. No rate makes it worse for sure: with
# random weights it fell at a rate of 1 still.
NOTHING_MORE = {"lr_scheduler": "piecewise_constant", "lr_scheduler_args": ["step_rules='1:8,0'"]}


def validated(bench: Bench) -> list[Result]:
    """A validation split, regularization images and privacy, in one run."""
    root = Root(bench, "validated")
    root.add_images(6, 512, folder="1_sks cat")
    root.add_images(3, 512, folder="reg/1_cat")
    steps = {"max_train_steps": STEPS // 2, "learning_rate": 1e-3}
    options = {**preset("sdxl-character"), **CHECKED, **SPLIT, **steps}
    root.write_plan(options, privacy=True)
    run = root.run()
    results = [Result("validation, regularization images, privacy", run.code == 0, told_by(run), run.seconds)]
    if run.code != 0:
        return results
    from safetensors import safe_open

    facts = json.loads((root.path / "model" / "provenance.json").read_bytes())
    lines = [line for line in run.lines if line.startswith("validation step=")]
    best = facts["best_validation"]
    files = sorted(path.name for path in (root.path / "model").iterdir())
    with safe_open(str(root.model), framework="numpy") as model:
        metadata = model.metadata()
    names = [name for name, text in metadata.items() if "sks cat" in text or "meadow" in text]
    regularization = re.search(r"num reg images.*: (\d+)", run.text)
    return [
        *results,
        Result(
            "the best validation is kept",
            bool(best)
            and len(lines) > 1
            and ("cats-best.safetensors" in files or best["step"] == facts["steps"]),
            f"{len(lines)} validations, best {best}, {facts['steps']} steps",
        ),
        Result(
            "regularization images are trained with",
            regularization is not None and int(regularization[1]) > 0,
            f"{regularization[1] if regularization else 'no'} of them",
        ),
        Result("a private run's model names neither captions nor folders", not names, f"named in: {names}"),
    ]


def ended_early(bench: Bench) -> list[Result]:
    """Once nothing more is learned no validation is better, and what was best before is delivered."""
    root = Root(bench, "early")
    root.add_images(6, 512, folder="1_sks cat")
    root.write_plan({**preset("sdxl-character"), **CHECKED, **SPLIT, **NOTHING_MORE}, validation_patience=1)
    run = root.run()
    name = "a training whose validation gets no better ends early, with its best weights"
    if run.code != 0:
        return [Result(name, False, told_by(run), run.seconds)]
    facts = json.loads((root.path / "model" / "provenance.json").read_bytes())
    best = facts["best_validation"]
    ended = "no better validation in 1: the training ends" in run.lines
    told = [
        f"{step}: {loss}"
        for step, loss in re.findall(r"validation step=(\d+) validation_loss=(\S+)", run.text)
    ]
    passed = facts["stopped_early"] and ended and best["step"] < facts["steps"] < STEPS
    passed = passed and steps_of(root.model) == best["step"]
    detail = f"ended after step {facts['steps']} of {STEPS}, delivered step {best['step']}; " + ", ".join(
        told
    )
    return [Result(name, passed, detail, run.seconds)]


def steps_of(model: Path) -> int:
    """As the trainer wrote it into the file."""
    from safetensors import safe_open

    with safe_open(str(model), framework="numpy") as opened:
        return int(opened.metadata()["ss_steps"])
