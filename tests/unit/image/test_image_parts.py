"""The pure parts of the image's build: option tables compared, locks split, tokenizers pinned."""

from __future__ import annotations

import gzip
import re
import sys
from enum import Enum
from types import SimpleNamespace

import pytest
from build_steps.make_tokenizers import TokenizerError, byte_letters, tokenizer_files

from kohya_trainer.keyword_arguments import describe_arguments
from kohya_trainer.make_option_table import argument_differences, differences
from kohya_trainer.self_check import required_modules
from local.embedded_aws.container_builder import UsageError, translate
from local.image_locks import split
from tests.functions_data import REPOSITORY

ECR = "000000000000.dkr.ecr.us-east-1.amazonaws.com/kohya"


def test_an_option_table_that_differs_is_told_option_by_option() -> None:
    trainer = {"new": {"type": "int"}, "seed": {"type": "int", "default": 0}, "same": {"type": "flag"}}
    table = {"gone": {"type": "int"}, "seed": {"type": "int"}, "same": {"type": "flag"}}

    assert differences(trainer, table) == [
        "new: the trainer has it, the table does not",
        "gone: the table has it, the trainer does not",
        "seed: default is 0 in the trainer, None in the table",
    ]
    assert differences(table, table) == []


def test_keywords_that_differ_are_told_by_option_and_name() -> None:
    table = {"optimizer_args": {"AdamW": ["betas", "eps"], "Lion": ["betas"]}, "lr_scheduler_args": {}}
    trainer = {"optimizer_args": {"AdamW": ["betas"]}, "lr_scheduler_args": {"cosine": ["num_cycles"]}}

    assert argument_differences(trainer, table) == [
        "lr_scheduler_args of cosine: ['num_cycles'] in the trainer's packages, None in the table",
        "optimizer_args of AdamW: ['betas'] in the trainer's packages, ['betas', 'eps'] in the table",
        "optimizer_args of Lion: None in the trainer's packages, ['betas'] in the table",
    ]
    assert argument_differences(table, table) == []


def test_the_keywords_are_those_of_the_packages_less_what_the_trainer_hands_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def polynomial(
        optimizer: object, num_warmup_steps: int, num_training_steps: int, power: float, lr_end: float
    ) -> None: ...

    class Lion:
        def __init__(self, params: object, lr: float, betas: object, use_triton: bool) -> None: ...

    monkeypatch.setitem(sys.modules, "lion_pytorch", SimpleNamespace(Lion=Lion))
    (kind,) = Enum("Scheduler", {"POLYNOMIAL": "polynomial"})
    trainer = SimpleNamespace(TYPE_TO_SCHEDULER_FUNCTION={kind: polynomial})

    found = describe_arguments(trainer)

    assert found["optimizer_args"]["Lion"] == ["betas", "use_triton"]
    assert found["lr_scheduler_args"] == {"polynomial": ["lr_end"]}


def test_each_requirement_is_imported_under_its_modules_name() -> None:
    text = "# torch of old\ntorch==2.7.0\nopencv-python-headless==4\nlion-pytorch==0\ndiffusers[torch]==1\nnumpy<=2\n"

    assert required_modules(text) == ["torch", "cv2", "lion_pytorch", "diffusers", "numpy"]


def test_a_lock_is_split_into_torch_and_the_rest() -> None:
    lock = "numpy==1 \\\n    --hash=sha256:1\nnvidia-nccl-cu12==2 \\\n    --hash=sha256:2\ntorchmetrics==3\ntorch==4\n"

    torch, rest = split(lock)

    assert torch == "nvidia-nccl-cu12==2 \\\n    --hash=sha256:2\ntorch==4\n"
    assert rest == "numpy==1 \\\n    --hash=sha256:1\ntorchmetrics==3\n"


def test_torch_is_in_no_other_lock() -> None:
    """A lock without dependencies of its own: each package once, torch's in the layer of torch."""
    for lock in (REPOSITORY / "container/requirements").glob("kohya_ss-*.txt"):
        assert not split(lock.read_text())[0]


def test_the_dockerfile_installs_nothing_that_is_not_pinned() -> None:
    """Debian's packages aside, whose release the base pins."""
    text = (REPOSITORY / "container/Dockerfile").read_text().replace("\\\n", " ")
    assert re.search(r"^ARG BASE_IMAGE=\S+:\S+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {
        "${BASE_IMAGE}",
        "scratch",
        "image",
    }
    installs = re.findall(r"pip (?:install|download) [^&\n]*", text)
    assert len(installs) == 5
    assert all("--require-hashes" in install and "--no-deps" in install for install in installs)


def test_the_letters_of_bytes_are_256_different_ones() -> None:
    assert len(set(byte_letters())) == 256


def test_merges_that_are_not_clips_are_refused() -> None:
    with pytest.raises(TokenizerError, match=r"vocab\.json came out with sha256"):
        tokenizer_files(gzip.compress(b"#version\ni n\nt h\n"))


def test_docker_build_is_buildahs_without_what_it_does_not_know() -> None:
    given = [
        "build",
        "--provenance=false",
        "--cache-from",
        f"{ECR}:latest",
        "--target",
        "image",
        "--tag",
        "x",
        ".",
    ]
    environment = {"EMBEDDED_AWS_BUILD_ARGUMENTS": "--build-arg BASE_IMAGE=base"}

    command = translate(given, environment)

    assert command[:2] == ["buildah", "bud"]
    assert command[-7:] == ["--build-arg", "BASE_IMAGE=base", "--target", "image", "--tag", "x", "."]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["push", "docker.io/x:1"], "not in an ECR registry"),
        (["push", f"{ECR}:1"], "no basic auth"),
        (["exec"], "exec"),
    ],
)
def test_docker_pushes_only_to_ecr_and_after_a_login(
    words: list[str], says: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = str(tmp_path_factory.mktemp("home"))

    with pytest.raises(UsageError, match=says):
        translate(words, {"HOME": home, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
