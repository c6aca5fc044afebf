"""Each way to fail, provoked with the real trainer: its class, its sentence, and how soon."""

import os
from collections.abc import Iterator

from checks import CHECKED, prepared, told_by
from report import Result
from roots import REPOSITORY, Bench, Root, Run, preset

UNREACHABLE = "stabilityai/stable-diffusion-xl-base-1.0"


def failed(name: str, run: Run, kind: str, sentence: str, most_seconds: float = 400.0) -> Result:
    """`kind` as operators count it, `sentence` as output/failure begins."""
    passed = (
        run.code == 1
        and f"failure class={kind}" in run.text
        and run.failure.startswith(sentence)
        and run.seconds < most_seconds
    )
    return Result(name, passed, told_by(run), run.seconds)


def limited(**limits: str) -> dict[str, str]:
    """The environment of a trainer that has less than the machine: memory_limit/sitecustomize.py names the limits."""
    paths = [str(REPOSITORY / "tests" / "gpu" / "memory_limit"), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(paths), **limits}


def loss_not_finite(bench: Bench) -> list[Result]:
    """A learning rate beyond all measure."""
    run = prepared(bench, "nan", {"learning_rate": 1e12, "max_grad_norm": 0.0, "max_train_steps": 400}).run()
    first = run.first(r"^progress .* loss=(nan|inf)")
    after = f"; {run.seconds - first:.1f} s after the first such step" if first else ""
    result = failed("a loss that is no number stops the run", run, "not-finite", "The loss stopped being")
    passed = result.passed and first is not None and run.seconds - first < 15
    return [Result(result.name, passed, result.detail + after, run.seconds)]


def out_of_memory(bench: Bench) -> list[Result]:
    """A batch that 12 GB do not hold, whatever is computed again."""
    root = prepared(bench, "memory", {"train_batch_size": 60}, chosen_by_user=["train_batch_size"])
    run = Root(bench, root.name, limited(GPU_MEMORY_LIMIT_GB="12")).run()
    return [
        failed(
            "too little GPU memory is told as such", run, "out-of-gpu-memory", "The GPU ran out of memory."
        )
    ]


def quick_failures(bench: Bench) -> Iterator[Result]:
    """Those that need no training: one after the other."""
    yield _nothing_to_train_on(bench)
    yield _refused_by_the_trainer(bench)
    yield _unknown_option(bench)
    yield _without_network(bench)
    yield _broken_image(bench)
    yield _broken_base_model(bench)


def _nothing_to_train_on(bench: Bench) -> Result:
    """The trainer itself finds none and exits with code 0: it reads .jpg and .JPG, but not .Jpg."""
    root = Root(bench, "empty")
    root.add_images(2, 512, suffix=".Jpg")
    root.write_plan({**preset("sdxl-character"), **CHECKED})
    return failed(
        "no data, for which the trainer returns 0, is a failure", root.run(), "no-data", "The trainer found"
    )


def _refused_by_the_trainer(bench: Bench) -> Result:
    root = prepared(bench, "refused", {"shuffle_caption": True})
    return failed(
        "what the trainer asserts is told", root.run(), "bad-config", "Kohya refuses the configuration"
    )


def _unknown_option(bench: Bench) -> Result:
    run = prepared(bench, "unknown", {"learning_rat": 1e-4}).run()
    return failed(
        "an option that does not exist is refused at once", run, "bad-config", "The configuration", 10
    )


def _without_network(bench: Bench) -> Result:
    hub = {"kind": "hub", "id": UNREACHABLE, "revision": "main"}
    run = prepared(bench, "hub", base_model=hub).run()
    return failed(
        "a hub that cannot be reached is told as such", run, "no-network", "The model hub cannot be reached"
    )


def _broken_image(bench: Bench) -> Result:
    """Its header tells a size, its pixels are missing."""
    root = prepared(bench, "image")
    image = root.data / "dataset" / "10_sks cat" / "003.jpg"
    image.write_bytes(image.read_bytes()[:2000])
    root.write_plan({**preset("sdxl-character"), **CHECKED})
    return failed(
        "an image that cannot be read is named", root.run(), "corrupt-image", "An image cannot be read ("
    )


def _broken_base_model(bench: Bench) -> Result:
    root = prepared(bench, "cut")
    base_model = root.data / "model" / bench.base_model.name
    base_model.unlink()
    with bench.base_model.open("rb") as whole, base_model.open("wb") as cut:
        cut.write(whole.read(1 << 24))
    return failed(
        "a damaged base model is told as such", root.run(), "corrupt-base-model", "sdxl.safetensors is"
    )
