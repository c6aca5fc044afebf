"""What is to be shown of `container/train` with the real trainer on a GPU; each group is one row or more of the table.

Groups share nothing but the base model, so that they run side by side on one GPU.
"""

import hashlib
import json
import math
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from other_tools import unmatched
from roots import Bench, Root, Run, preset

STEPS = 40
STATE = 20
# Smaller than the preset's 1024, so that several runs share one GPU; nothing that is checked depends on it.
CHECKED = {"resolution": "512,512", "max_train_steps": STEPS, "train_batch_size": 4}
METRICS = {
    "step": r"progress step=([0-9]+)",
    "total": r" total=([0-9]+)",
    "loss": r" loss=([0-9.eE+-]+|nan|inf)",
    "eta": r" eta_seconds=([0-9.]+)",
}


@dataclass(frozen=True)
class Result:
    """One row: what was shown, whether it holds, and the numbers or the failure that say so."""

    name: str
    passed: bool
    detail: str
    seconds: float = 0.0


def prepared(bench: Bench, name: str, options: dict[str, Any] | None = None, **plan: Any) -> Root:
    """A root with six images and the preset `sdxl-character`, changed by `options`."""
    root = Root(bench, name)
    root.add_images(6, 512)
    root.write_plan({**preset("sdxl-character"), **CHECKED, **(options or {})}, **plan)
    return root


def whole_run(bench: Bench) -> list[Result]:
    """A run from start to end: progress, states, samples, model, provenance, other tools."""
    root = prepared(bench, "whole", sample_prompts=["sks cat on a sofa --w 512 --h 512 --s 8 --d 1"])
    run = root.run()
    progress = [line for line in run.lines if line.startswith("progress ")]
    parsed = all(re.search(pattern, line) for line in progress for pattern in METRICS.values())
    steps = [int(entry["step"]) for entry in run.progress()]
    results = [
        Result("a planned run ends with a proved model", run.code == 0, told_by(run), run.seconds),
        Result(
            "one progress line a step, as the metric definitions parse it",
            parsed and steps == list(range(1, STEPS + 1)),
            f"{len(steps)} lines; last: {progress[-1] if progress else '-'}",
        ),
        Result(
            "states are kept in two slots",
            [int(line.split("=")[1]) for line in run.lines if line.startswith("checkpoint step=")]
            == list(range(10, STEPS, 10)),
            ", ".join(line for line in run.lines if line.startswith("checkpoint step=")),
        ),
    ]
    if run.code != 0:
        return results
    return [
        *results,
        *_delivered(root),
        loads_elsewhere("diffusers reads the model (U-Net alone)", root, text=0),
    ]


def _delivered(root: Root) -> list[Result]:
    facts = json.loads((root.path / "model" / "provenance.json").read_bytes())
    differing = [entry["name"] for entry in facts["files"] if _digest(root, entry["name"]) != entry["sha256"]]
    samples = [entry["name"] for entry in facts["files"] if entry["name"].startswith("samples/")]
    base_model = hashlib.sha256(root.bench.base_model.read_bytes()).hexdigest()
    told = facts["base_model"].get("sha256") == base_model and facts["rehearsal"] is False
    return [
        Result(
            "provenance.json names base model, dataset, steps, GPU and every file's digest",
            told and not differing and facts["steps"] == STEPS and bool(facts["hardware"]["gpus"]),
            f"{facts['tensors']} tensors, rank {facts['rank']}, up-norm {facts['up_norm']:.4g}; differing: {differing}",
        ),
        Result("the sample prompt is drawn at the last step", len(samples) == 1, ", ".join(samples)),
    ]


def _digest(root: Root, name: str) -> str:
    return hashlib.sha256((root.path / "model" / name).read_bytes()).hexdigest()


def loads_elsewhere(name: str, root: Root, text: int) -> Result:
    unet, encoders, wrong = unmatched(root.model)
    passed = unet == 722 and encoders == text and not wrong
    return Result(
        name, passed, f"{unet} pairs on the U-Net, {encoders} on text encoders, {len(wrong)} fit nowhere"
    )


def interrupted_by_sigterm(bench: Bench) -> list[Result]:
    """SageMaker's SIGTERM, then a restart with the same checkpoints."""
    root = prepared(bench, "sigterm")
    run = root.run(stop_at=rf"^checkpoint step={STATE}$", number=signal.SIGTERM)
    ended = run.seconds - (run.first(rf"^checkpoint step={STATE}$") or 0)
    passed = run.code == 1 and run.failure.startswith("The training was interrupted") and not _left(root)
    return [
        Result(
            "SIGTERM ends the trainer within 120 s and says how to go on",
            passed and ended < 120,
            f"{ended:.1f} s",
        ),
        *_resumed(root, STATE, "after SIGTERM"),
    ]


def killed_while_saving(bench: Bench) -> list[Result]:
    """The machine is taken without a warning while the second state is being written."""
    root = prepared(bench, "killed")
    run = root.run(stop_at=rf"saving state at step {STATE}", number=signal.SIGKILL)
    return [
        Result(
            "SIGKILL during a save leaves no process", run.code == -9 and not _left(root), f"code {run.code}"
        ),
        *_resumed(root, STATE - 10, "after a kill during a save"),
    ]


def _resumed(root: Root, least: int, when: str) -> list[Result]:
    run = root.run()
    found = re.search(rf"^resuming after step (\d+) of {STEPS}$", run.text, re.MULTILINE)
    done = int(found[1]) if found else -1
    steps = [int(entry["step"]) for entry in run.progress()]
    history = root.path / "model" / "loss.jsonl"
    if run.code != 0 or not history.exists():
        return [Result(f"a restart goes on {when}", False, told_by(run), run.seconds)]
    entries = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    counted = [entry["step"] for entry in entries] == list(range(1, STEPS + 1))
    before, after, last = (entries[step - 1]["loss"] for step in (done, done + 1, STEPS))
    # Averages of random weights' losses: near 1 and within a tenth or two of one another.
    smooth = all(0.7 < value / before < 1.4 for value in (after, last))
    passed = done >= least and steps == list(range(done + 1, STEPS + 1)) and counted and smooth
    detail = (
        f"after step {done}; steps {steps[0]} to {steps[-1]}; loss {before}, then {after}, at the end {last}"
    )
    return [Result(f"a restart makes exactly the missing steps {when}", passed, detail, run.seconds)]


def alike(bench: Bench) -> list[Result]:
    """Once all have ended: how far the continued models lie from the uninterrupted one."""
    whole = Root(bench, "whole").model
    results = []
    for name in ("sigterm", "killed"):
        other, title = Root(bench, name).model, f"the model continued ({name}) is like the uninterrupted one"
        if not (whole.exists() and other.exists()):
            results.append(Result(title, False, "one of the two is missing"))
            continue
        # The trainer shuffles the rest of a broken epoch anew, so the models are alike and not the same.
        distance = _distance(whole, other)
        results.append(
            Result(title, distance < 1.0, f"‖difference of up-weights‖ / ‖up-weights‖ = {distance:.3f}")
        )
    return results


def _distance(whole: Path, other: Path) -> float:
    from safetensors.torch import load_file

    one, two = load_file(str(whole)), load_file(str(other))
    ups = [name for name in one if name.endswith("lora_up.weight")]
    difference = sum(float((one[name].double() - two[name].double()).square().sum()) for name in ups)
    return math.sqrt(difference / sum(float(one[name].double().square().sum()) for name in ups))


def _left(root: Root) -> list[str]:
    """Command lines that still name this root, once the kernel has had time to end them."""
    time.sleep(5)
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if f"{root.path}/" in line]


def told_by(run: Run) -> str:
    """The failure's first line, or the entry point's last."""
    return (run.failure.splitlines() or run.lines[-1:] or ["nothing was printed"])[0][:200]
