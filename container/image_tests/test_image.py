"""The image from inside, before it is pushed: run by buildspec.yml without a network and on a read-only root."""

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from kohya_trainer.command import entry_point
from kohya_trainer.make_option_table import trainer_parser
from kohya_trainer.self_check import TOKENIZERS
from kohya_trainer.toml_text import to_toml

KOHYA_HOME = Path(os.environ["KOHYA_HOME"])
COMMIT = re.compile(r"[0-9a-f]{40}")
# What a run may set, less those that need a GPU to be made (bitsandbytes').
OPTIMIZERS = [
    "AdamW",
    "Lion",
    "DAdaptAdam",
    "DAdaptAdaGrad",
    "DAdaptAdan",
    "DAdaptLion",
    "DAdaptSGD",
    "Prodigy",
    "AdaFactor",
]
DIGESTS = {
    "vocab.json": "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349",
    "merges.txt": "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
}


def test_train_says_what_the_image_holds() -> None:
    done = subprocess.run(["train", "--version"], capture_output=True, text=True, check=True)

    facts = json.loads(done.stdout)
    assert facts["kohya_ss"] == os.environ["KOHYA_VERSION"]
    assert COMMIT.fullmatch(facts["kohya_ss_commit"])
    assert COMMIT.fullmatch(facts["trainer_commit"])
    assert COMMIT.fullmatch(facts["source_commit"])
    assert len(facts["option_table_sha256"]) == 64


def test_train_without_inputs_explains_itself_to_sagemaker(tmp_path: Path) -> None:
    environment = {**os.environ, "TRAINING_ROOT": str(tmp_path)}

    done = subprocess.run(["train"], capture_output=True, text=True, env=environment)

    assert done.returncode == 1
    failure = (tmp_path / "output" / "failure").read_text()
    assert "Remedy" in done.stdout
    assert failure.strip()


def test_it_runs_as_root_behind_dumb_init() -> None:
    assert os.geteuid() == 0
    assert shutil.which("dumb-init")


def test_it_has_neither_a_gui_nor_tensorflow() -> None:
    installed = {each.name.lower() for each in importlib.metadata.distributions()}

    assert not installed & {"gradio", "easygui", "altair", "tensorflow", "wandb", "jupyter"}


def test_the_trainer_is_its_scripts_without_history() -> None:
    assert entry_point(KOHYA_HOME).is_file()
    assert not list(KOHYA_HOME.rglob(".git"))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_tokenizers_are_the_published_ones(name: str) -> None:
    for file, digest in DIGESTS.items():
        content = (Path(os.environ["TOKENIZER_CACHE_DIR"]) / name / file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest


def test_the_trainer_reads_the_configuration_that_this_image_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"learning_rate": 1e-4, "network_dim": 32, "optimizer_args": ["a=1"], "cache_latents": True}
    (tmp_path / "config.toml").write_text(to_toml(options))
    parser = trainer_parser(KOHYA_HOME)
    from library import train_util

    monkeypatch.setattr(sys, "argv", ["train", "--config_file", str(tmp_path / "config.toml")])
    read = train_util.read_config_from_file(parser.parse_args(), parser)

    assert {name: getattr(read, name) for name in options} == options


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_that_a_run_may_choose_can_be_made(name: str) -> None:
    parser = trainer_parser(KOHYA_HOME)
    import torch
    from library import train_util

    arguments: Namespace = parser.parse_args(["--optimizer_type", name, "--learning_rate", "1.0"])

    made = train_util.get_optimizer(arguments, [torch.nn.Parameter(torch.zeros(2))])

    assert isinstance(made[2], torch.optim.Optimizer)
