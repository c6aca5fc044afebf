"""What older datasets and images still use: the layout without a plan, and the trainer of kohya_ss v22.6.2."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from checks import STEPS, loads_elsewhere, prepared, told_by
from report import Result
from roots import Bench, Root, preset

from kohya_trainer.toml_text import to_toml

VERSION = "v22.6.2"


def older_layout(bench: Bench) -> Iterator[Result]:
    """A dataset with nothing but its own TOML: the recipe `sample-2024`, which trains both text encoders."""
    root = Root(bench, "older")
    root.add_images(4, 512)
    options: dict[str, Any] = {
        **preset("sample-2024"),
        "resolution": "512,512",
        "max_train_steps": 4,
        "network_dim": 16,
        "caption_extension": ".txt",
        "pretrained_model_name_or_path": str(bench.base_model),
        "sdxl": True,
        "max_token_length": 75,
        "output_name": "cats",
    }
    # Its eight keys without effect and the refused value of the original sample are left out with a note.
    old = to_toml(options).replace("network_module", "conv_dim = 1\nnetwork_module", 1)
    (root.data / "dataset" / "kohya-sdxl-config.toml").write_text(old, encoding="utf-8")
    shutil.rmtree(root.data / "config", ignore_errors=True)
    run = root.run()
    yield Result("the older layout with both text encoders trained", run.code == 0, told_by(run), run.seconds)
    if run.code == 0:
        yield loads_elsewhere("diffusers reads the model (text encoders too)", root, text=264)


def older_version(bench: Bench) -> Iterator[Result]:
    """A whole run of the trainer that has neither a submodule nor this application's hooks: its bar is read. Left out
    where there is none.
    """
    if bench.older_home is None:
        return
    wanted = STEPS // 2
    older = replace(bench, kohya_home=bench.older_home, version=VERSION)
    root = prepared(older, "older-version", {"max_train_steps": wanted})
    run = root.run()
    name = f"a run with kohya_ss {VERSION} ends with a proved model"
    if run.code != 0:
        yield Result(name, False, told_by(run), run.seconds)
        return
    steps = [int(entry["step"]) for entry in run.progress()]
    states = re.findall(r"^checkpoint step=(\d+)", run.text, re.MULTILINE)
    facts = json.loads((root.path / "model" / "provenance.json").read_bytes())
    whole = steps == list(range(1, wanted + 1)) and facts["steps"] == wanted
    yield Result(
        name,
        whole and bool(states) and facts["kohya_version"] == VERSION,
        f"{told_by(run)}; states after {', '.join(states)}",
        run.seconds,
    )
    yield loads_elsewhere(f"diffusers reads the model of {VERSION}", root, text=0)
