"""Whether a model's modules are where other programs look for them: by what was recorded of the trainer and of
diffusers' own conversion, and, where both are installed, by asking them again (`./dev test-image`).
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from kohya_trainer.lora_modules import odd_and_missing, text_encoder_modules, unet_modules

HERE = Path(__file__).parent
RECORDED: dict[str, Any] = json.loads((HERE / "data" / "lora_modules.json").read_bytes())
KOHYA_HOME = os.environ.get("KOHYA_HOME")
installed = importlib.util.find_spec("torch") and importlib.util.find_spec("diffusers")
# As test_acceleration.py: in the image they must run.
needs_trainer = pytest.mark.skipif(
    not (KOHYA_HOME and installed), reason="needs the trainer with its packages, as the image has them"
)


def test_the_proofs_modules_are_those_that_diffusers_applies() -> None:
    modules = RECORDED["modules"]

    assert set(modules) == unet_modules() | text_encoder_modules()
    assert len(unet_modules()) == 722
    assert len(set(modules.values())) == len(modules)
    for name, place in modules.items():
        part = {"lora_unet": "unet", "lora_te1": "text_encoder", "lora_te2": "text_encoder_2"}
        assert place.split(".")[0] == part["_".join(name.split("_")[:2])]


@needs_trainer
def test_the_trainer_and_diffusers_still_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = _recorder(monkeypatch)
    unet, encoders = recorder.models()

    assert recorder.converted(recorder.network(unet, encoders), encoders) == RECORDED["modules"]


@needs_trainer
@pytest.mark.parametrize(
    ("module", "text", "arguments"),
    [
        ("networks.lora_fa", True, {}),
        ("networks.lora", False, {"conv_dim": "1"}),
        ("networks.dylora", False, {"conv_dim": "1"}),
    ],
)
def test_of_each_network_no_module_is_odd_or_missing(
    monkeypatch: pytest.MonkeyPatch, module: str, text: bool, arguments: dict[str, str]
) -> None:
    recorder = _recorder(monkeypatch)
    unet, encoders = recorder.models()

    found = recorder.modules_of(recorder.network(unet, encoders, module, text, **arguments))

    assert odd_and_missing(found, {"network_train_unet_only": not text}, arguments) == ([], [])


@needs_trainer
def test_dylora_loses_a_text_encoder_and_no_program_finds_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why such a training is refused before it begins (checked_options.py)."""
    recorder = _recorder(monkeypatch)
    unet, encoders = recorder.models()

    found = recorder.modules_of(recorder.network(unet, encoders, "networks.dylora", text=True))

    # The second encoder's 32 layers of 6 modules, in places where those of the first one's 12 were.
    text = {name for name in found if name.startswith("lora_te_")}
    assert len(text) == 192
    assert odd_and_missing(text | unet_modules(), {}, {}) == (sorted(text), sorted(text_encoder_modules()))


def _recorder(monkeypatch: pytest.MonkeyPatch) -> Any:
    from kohya_trainer.command import entry_point

    scripts = entry_point(Path(str(KOHYA_HOME))).parent
    monkeypatch.setattr(sys, "path", [str(scripts), str(HERE), *sys.path])
    return importlib.import_module("record_module_names")
