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
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from other_tools import unmatched_elsewhere
from report import Result
from roots import Bench, Root, Run, preset, sends

STEPS = 40
STATE = 20
# In the middle of the second epoch, and so long before the end that the trainer is not there when its state is kept: it
# goes on until then.
SIGNAL = 17
KEPT = 100
# Smaller than the preset's 1024, so that several runs share one GPU; and than its rank of 32, whose states of a
# gigabyte would be most of what is waited for. Nothing that is checked depends on them.
CHECKED = {
    "resolution": "512,512",
    "max_train_steps": STEPS,
    "train_batch_size": 4,
    "network_dim": 8,
    "network_alpha": 4,
}
METRICS = {
    "step": r"progress step=([0-9]+)",
    "total": r" total=([0-9]+)",
    "loss": r" loss=([0-9.eE+-]+|nan|inf)",
    "rate": r" lr=([0-9.eE+-]+)",
    "images": r" images_per_second=([0-9.]+)",
    "memory": r" gpu_memory_gib=([0-9.]+)",
    "eta": r" eta_seconds=([0-9.]+)",
}


def prepared(bench: Bench, name: str, options: dict[str, Any] | None = None, **plan: Any) -> Root:
    """A root with six images and the preset `sdxl-character`, changed by `options`; a state every ten steps."""
    root = Root(bench, name, {"CHECKPOINT_EVERY_N_STEPS": "10"})
    root.add_images(6, 512)
    root.write_plan({**preset("sdxl-character"), **CHECKED, **(options or {})}, **plan)
    return root


def whole_run(bench: Bench) -> Iterator[Result]:
    """A run from start to end: progress, states, samples, model, provenance, other tools."""
    root = prepared(bench, "whole", sample_prompts=["sks cat on a sofa --w 512 --h 512 --s 8 --d 1"])
    run = root.run()
    progress = [line for line in run.lines if line.startswith("progress ")]
    parsed = all(re.search(pattern, line) for line in progress for pattern in METRICS.values())
    steps = [int(entry["step"]) for entry in run.progress()]
    yield Result("a planned run ends with a proved model", run.code == 0, told_by(run), run.seconds)
    yield Result(
        "one progress line a step, as the metric definitions parse it",
        parsed and steps == list(range(1, STEPS + 1)),
        f"{len(steps)} lines; last: {progress[-1] if progress else '-'}",
    )
    saved = [int(step) for step in re.findall(r"^checkpoint step=(\d+) ", run.text, re.MULTILINE)]
    markers = sorted((root.path / "checkpoints").glob("slot-*/complete.json"))
    kept = sorted(json.loads(marker.read_bytes())["step"] for marker in markers)
    yield Result(
        "states are kept in two slots",
        saved == list(range(10, STEPS, 10)) and kept == saved[-2:],
        f"{', '.join(line for line in run.lines if line.startswith('checkpoint step='))}; in the slots: {kept}",
    )
    if run.code == 0:
        yield from _delivered(root)
        yield loads_elsewhere("diffusers reads the model (U-Net alone)", root, text=0)


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
        _sample_told(root, samples),
        _metadata_told(root, facts),
    ]


def _sample_told(root: Root, samples: list[str]) -> Result:
    from PIL import Image

    texts = [Image.open(root.path / "model" / name).info for name in samples]
    passed = len(texts) == 1 and texts[0].get("step") == str(STEPS) and texts[0].get("seed") == "1"
    told = ", ".join(
        f"{key}={value}" for text in texts for key, value in text.items() if isinstance(value, str)
    )
    return Result(
        "the sample prompt is drawn at the last step, with prompt, seed and step in the PNG",
        passed and "prompt=sks cat" in told,
        told,
    )


def _metadata_told(root: Root, facts: dict[str, Any]) -> Result:
    from safetensors import safe_open

    with safe_open(str(root.model), framework="numpy") as model:
        metadata = model.metadata()
    wanted = {
        "modelspec.license": facts["licence"],
        "modelspec.trigger_phrase": facts["trigger_word"],
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
    }
    found = {name: metadata.get(name) for name in wanted}
    provenance = json.loads(metadata.get("fine_tuning.provenance", "{}"))
    return Result(
        "the model's own metadata tells licence, trigger word and provenance",
        found == wanted
        and provenance.get("base_model") == facts["base_model"]
        and "ss_tag_frequency" in metadata,
        ", ".join(f"{name}={value}" for name, value in found.items()),
    )


def _digest(root: Root, name: str) -> str:
    return hashlib.sha256((root.path / "model" / name).read_bytes()).hexdigest()


def loads_elsewhere(name: str, root: Root, text: int) -> Result:
    unet, encoders, wrong = unmatched_elsewhere(root.model)
    passed = unet == 722 and encoders == text and not wrong
    return Result(
        name, passed, f"{unet} pairs on the U-Net, {encoders} on text encoders, {len(wrong)} fit nowhere"
    )


def interrupted_by_sigterm(bench: Bench) -> Iterator[Result]:
    """SageMaker's SIGTERM in the middle of an epoch, then a restart with the same checkpoints."""
    root = prepared(bench, "sigterm")
    line = rf"^progress step={SIGNAL} "
    run = root.run(line, sends(signal.SIGTERM))
    ended = run.seconds - (run.first(line) or 0)
    kept = re.search(r"The state after step (\d+) is kept", run.failure)
    passed = run.code == 1 and kept is not None and int(kept[1]) >= SIGNAL and not left(root)
    yield Result(
        "SIGTERM saves the state of the step it finds, within 120 s",
        passed and ended < 120,
        f"{told_by(run)} {ended:.1f} s",
    )
    yield resumed(root, SIGNAL, "after SIGTERM")


def killed_while_saving(bench: Bench) -> Iterator[Result]:
    """The machine is taken without a warning while the second state is being written."""
    root = prepared(bench, "killed")
    run = root.run(rf"save train state to .*step-{STATE:08d}", sends(signal.SIGKILL))
    yield Result(
        "SIGKILL during a save leaves no process", run.code == -9 and not left(root), f"code {run.code}"
    )
    yield resumed(root, STATE - 10, "after a kill during a save")


def latents_kept(bench: Bench) -> Iterator[Result]:
    """As many images as have their latents kept: the restart encodes none of them again."""
    root = Root(bench, "latents", {"CHECKPOINT_EVERY_N_STEPS": "10"})
    root.add_images(KEPT, 512, folder="1_sks cat")
    root.write_plan({**preset("sdxl-character"), **CHECKED})
    first = root.run(rf"^progress step={SIGNAL} ", sends(signal.SIGTERM))
    written = _latents(root)
    yield resumed(root, SIGNAL, "with the latents of its first launch")
    told = f"{KEPT} images have their latents from an earlier launch"
    log = root.log.read_text(encoding="utf-8")
    same = _latents(root) == written
    yield Result(
        "a restart finds the latents of its first launch, and writes none again",
        first.code == 1 and len(written) == KEPT and told in log and same,
        f"{len(written)} files; {told if told in log else 'nothing was told'}{'' if same else '; some are new'}",
    )


def _latents(root: Root) -> dict[str, int]:
    """File → when it was written, in nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in root.path.glob("checkpoints/latents/*/*.npz")}


# With the preset's own LoRA, whose products' shapes the kernels are given.
AS_A_USER = {"train_batch_size": 2, "learning_rate": 1e-3, "network_dim": 32, "network_alpha": 16}


def fast_and_own(bench: Bench) -> list[Result]:
    """The fast U-Net against Kohya's own, step by step on the same batches, in several aspect buckets."""
    losses, models, told = [], [], ""
    for name, variables in (("fast", {}), ("own", {"KOHYA_ACCELERATION": "off"})):
        root = Root(bench, name, variables)
        for number, sides in enumerate(((512, 512), (640, 384), (384, 640), (768, 320))):
            root.add_images(3, sides, folder=f"4_sks cat {number}")
        root.write_plan({**preset("sdxl-character"), **CHECKED, **AS_A_USER})
        run = root.run()
        if run.code:
            return [Result("the fast U-Net learns as Kohya's own", False, told_by(run), run.seconds)]
        told = told or " ".join(line for line in run.lines if line.startswith("acceleration: "))
        history = (root.path / "model" / "loss.jsonl").read_text(encoding="utf-8").splitlines()
        losses.append([json.loads(line)["loss"] for line in history])
        models.append(root.model)
    apart = max(abs(one / two - 1) for one, two in zip(*losses, strict=True))
    models_apart = distance(*models)
    return [
        Result(
            "the fast U-Net learns as Kohya's own, in four aspect buckets",
            "fast U-Net: " in told and apart < 0.01 and models_apart < 0.1,
            f"losses of {len(losses[0])} steps at most {apart:.3%} apart, up-weights {models_apart:.3f}; {told}",
        )
    ]


def resumed(root: Root, least: int, when: str) -> Result:
    """Restarts an interrupted run of STEPS steps, which must go on after step `least` or a later one."""
    run = root.run()
    found = re.search(rf"^resuming after step (\d+) of {STEPS}$", run.text, re.MULTILINE)
    done = int(found[1]) if found else -1
    steps = [int(entry["step"]) for entry in run.progress()]
    history = root.path / "model" / "loss.jsonl"
    if run.code != 0 or not history.exists():
        return Result(f"a restart goes on {when}", False, told_by(run), run.seconds)
    entries = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    counted = [entry["step"] for entry in entries] == list(range(1, STEPS + 1))
    before, after, last = (entries[step - 1]["loss"] for step in (done, done + 1, STEPS))
    # Averages of random weights' losses: near 1 and within a tenth or two of one another.
    smooth = all(0.7 < value / before < 1.4 for value in (after, last))
    passed = done >= least and steps == list(range(done + 1, STEPS + 1)) and counted and smooth
    detail = (
        f"after step {done}; steps {steps[0]} to {steps[-1]}; loss {before}, then {after}, at the end {last}"
    )
    return Result(f"a restart makes exactly the missing steps {when}", passed, detail, run.seconds)


COMPARED = (whole_run, interrupted_by_sigterm, killed_while_saving)


def alike(bench: Bench) -> Iterator[Result]:
    """Once all have ended: how far the continued models lie from the uninterrupted one."""
    folders = [replace(bench, work=bench.work / group.__name__) for group in COMPARED]
    whole, *continued = (
        Root(*root).model for root in zip(folders, ("whole", "sigterm", "killed"), strict=True)
    )
    for other in continued:
        title = f"the model of {other.parents[1].name}, which went on, is like the uninterrupted one"
        if not (whole.exists() and other.exists()):
            yield Result(title, False, "one of the two is missing")
            continue
        # The data's order and the random numbers are kept; what the GPU sums in another order may still differ.
        apart = distance(whole, other)
        yield Result(title, apart < 0.05, f"‖difference of up-weights‖ / ‖up-weights‖ = {apart:.3f}")


def distance(whole: Path, other: Path) -> float:
    from safetensors.torch import load_file

    one, two = load_file(str(whole)), load_file(str(other))
    ups = [name for name in one if name.endswith("lora_up.weight")]
    difference = sum(float((one[name].double() - two[name].double()).square().sum()) for name in ups)
    return math.sqrt(difference / sum(float(one[name].double().square().sum()) for name in ups))


def left(root: Root) -> list[str]:
    """Command lines that still name this root, once the kernel has had time to end them."""
    time.sleep(5)
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if f"{root.path}/" in line]


def told_by(run: Run) -> str:
    """The failure's first line, or the entry point's last."""
    return (run.failure.splitlines() or run.lines[-1:] or ["nothing was printed"])[0][:200]
