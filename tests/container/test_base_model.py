"""The base model: out of the model channel without a network, or as the hub's at a pinned revision."""

import hashlib
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from kohya_trainer import base_model
from kohya_trainer.base_model import load_base_model
from kohya_trainer.environment import Environment, chosen, read_environment
from kohya_trainer.errors import (
    BaseModelError,
    CorruptBaseModelError,
    InvalidConfigurationError,
    TrainerFailedError,
)
from kohya_trainer.inputs import BaseModel

# A whole .safetensors of one byte.
_HEADER = b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
WEIGHTS = len(_HEADER).to_bytes(8, "little") + _HEADER + b"\1"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    (tmp_path / "kohya").mkdir()
    (tmp_path / "ml" / "input" / "data" / "model").mkdir(parents=True)
    made = read_environment({"TRAINING_ROOT": str(tmp_path / "ml"), "KOHYA_HOME": str(tmp_path / "kohya")})
    return replace(made, rehearsal=False)


@pytest.mark.parametrize("file", ["sdxl.safetensors", None])
def test_a_channels_file_is_used_offline_and_its_digest_recorded(
    environment: Environment, file: str | None
) -> None:
    path = environment.folders.base_model / "sdxl.safetensors"
    path.write_bytes(WEIGHTS)

    loaded = load_base_model(BaseModel("channel", file=file), None, environment)

    assert loaded.name == str(path)
    assert loaded.told()["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert loaded.variables == {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def test_the_trainer_need_not_wait_for_the_digest(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    (environment.folders.base_model / "sdxl.safetensors").write_bytes(WEIGHTS)
    may_end = threading.Event()

    def slow(path: Path) -> str:
        assert may_end.wait(10)
        return path.name

    monkeypatch.setattr(base_model, "sha256_of", slow)
    loaded = load_base_model(BaseModel("channel"), None, environment)
    may_end.set()

    assert loaded.told() == {**loaded.record, "sha256": "sdxl.safetensors"}


@pytest.mark.parametrize("file", ["other.safetensors", "sdxl.ckpt"])
def test_a_missing_file_or_a_pickle_is_refused(environment: Environment, file: str) -> None:
    (environment.folders.base_model / "sdxl.ckpt").touch()

    with pytest.raises(BaseModelError, match=file):
        load_base_model(BaseModel("channel", file=file), None, environment)


def test_a_vae_beside_the_base_model_is_trained_with_and_recorded(environment: Environment) -> None:
    for name in ("sdxl.safetensors", "vae.safetensors"):
        (environment.folders.base_model / name).write_bytes(WEIGHTS)

    loaded = load_base_model(BaseModel("channel"), None, environment)

    assert loaded.vae == str(environment.folders.base_model / "vae.safetensors")
    assert loaded.told()["vae"] == "vae.safetensors"
    assert loaded.told()["vae_sha256"] == hashlib.sha256(WEIGHTS).hexdigest()


@pytest.mark.parametrize("name", ["sdxl.safetensors", "vae.safetensors"])
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", WEIGHTS[:-1], WEIGHTS + b"\0"])
def test_a_damaged_file_is_named_before_a_gpu_is_busy(
    environment: Environment, name: str, content: bytes
) -> None:
    for whole in ("sdxl.safetensors", "vae.safetensors"):
        (environment.folders.base_model / whole).write_bytes(WEIGHTS)
    (environment.folders.base_model / name).write_bytes(content)

    with pytest.raises(CorruptBaseModelError, match=f"{name} is damaged"):
        load_base_model(BaseModel("channel", file="sdxl.safetensors"), None, environment)


def test_a_name_without_a_revision_is_left_to_kohya(environment: Environment) -> None:
    assert load_base_model(BaseModel("hub", id="a/b"), None, environment).name == "a/b"
    assert load_base_model(None, "c/d", environment).name == "c/d"


def test_a_hub_that_cannot_be_asked_is_a_classified_failure(environment: Environment) -> None:
    broken = replace(environment, machine=replace(environment.machine, python="false"))

    with pytest.raises(TrainerFailedError) as failure:
        load_base_model(BaseModel("hub", id="a/b", revision="1"), None, broken)

    assert failure.value.kind == "trainer-crash"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (
            "huggingface_hub.errors.GatedRepoError: 403 Client Error. Access to a/b is restricted.",
            "base-model",
        ),
        ("huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error.", "base-model"),
        ("huggingface_hub.errors.RevisionNotFoundError: 404 Client Error.", "base-model"),
        ("requests.exceptions.ConnectionError: Max retries exceeded with url: /a/b", "no-network"),
        ("OSError: [Errno 28] No space left on device", "disk-full"),
    ],
)
def test_what_the_hub_refuses_is_told_in_its_class(
    environment: Environment, tmp_path: Path, said: str, kind: str
) -> None:
    with pytest.raises(TrainerFailedError) as failure:
        load_base_model(
            BaseModel("hub", id="a/b", revision="1"), None, answering(environment, tmp_path, said, 1)
        )

    assert failure.value.kind == kind


def test_the_hub_is_asked_for_the_pinned_revision_and_the_answer_is_hashed(
    environment: Environment, tmp_path: Path
) -> None:
    fetched = tmp_path / "sdxl.safetensors"
    fetched.write_bytes(WEIGHTS)
    hub = BaseModel("hub", id="a/b", revision="c0ffee", file="sdxl.safetensors")

    loaded = load_base_model(hub, None, answering(environment, tmp_path, f"c0ffee\n{fetched}", 0))

    asked = (tmp_path / "asked").read_text().splitlines()[-4:]
    assert asked == ["a/b", "c0ffee", "sdxl.safetensors", str(environment.folders.work / "base-model")]
    assert loaded.name == str(fetched)
    assert loaded.told()["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()


# Of a model whose branch stands for the commit that is its letter forty times.
HUB = """
from pathlib import Path
from types import SimpleNamespace

def model_info(model, revision):
    return SimpleNamespace(sha={"main": "a", "v1": "b"}[revision] * 40)

def snapshot_download(model, revision, allow_patterns, local_dir):
    Path(local_dir).mkdir(parents=True)
    (Path(local_dir) / "fetched").write_text(revision)
    return local_dir
"""


@pytest.mark.parametrize(("revision", "commit"), [("main", "a" * 40), ("v1", "b" * 40), ("c" * 40, "c" * 40)])
def test_a_branch_of_the_hub_is_pinned_before_it_is_fetched(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str, commit: str
) -> None:
    (tmp_path / "huggingface_hub.py").write_text(HUB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    asking = replace(environment, machine=replace(environment.machine, python=sys.executable))

    loaded = load_base_model(BaseModel("hub", id="a/b", revision=revision), None, asking)

    assert loaded.told()["revision"] == commit
    assert (Path(str(loaded.name)) / "fetched").read_text() == commit


def answering(environment: Environment, folder: Path, said: str, code: int) -> Environment:
    """With an interpreter that notes how it was called and says what the hub's client would."""
    python = folder / "python"
    stream = "&2" if code else "&1"
    python.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{folder}/asked\necho '{said}' >{stream}\nexit {code}\n"
    )
    python.chmod(0o755)
    return replace(environment, machine=replace(environment.machine, python=str(python)))


def test_sagemakers_files_are_read_in_both_spellings(tmp_path: Path) -> None:
    settings = tmp_path / "input" / "config"
    settings.mkdir(parents=True)
    (settings / "hyperparameters.json").write_text('{"run_id": "cats-1", "image": "\\"a@sha256:b\\""}')
    (settings / "resourceconfig.json").write_text('{"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]}')

    found = read_environment(
        {"TRAINING_ROOT": str(tmp_path), "KOHYA_HOME": "/kohya", "IMAGE_DIGEST": "other"}
    )

    assert (found.run_id, found.image, found.machine.rank) == ("cats-1", "a@sha256:b", 1)
    assert found.kohya_version == "v25.2.2"


@pytest.mark.parametrize("content", ["{", "[]", '{"current_host": "algo-9", "hosts": ["algo-1"]}'])
def test_a_broken_file_of_sagemakers_is_told_as_such(tmp_path: Path, content: str) -> None:
    settings = tmp_path / "input" / "config"
    settings.mkdir(parents=True)
    (settings / "resourceconfig.json").write_text(content)

    with pytest.raises(InvalidConfigurationError, match=r"resourceconfig\.json"):
        read_environment({"TRAINING_ROOT": str(tmp_path), "KOHYA_HOME": "/kohya"})


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [(None, ("a", "b")), ("", ("a", "b")), ("1", ("b",)), ("0,1", ("a", "b")), ("GPU-uuid", ("a", "b"))],
)
def test_the_gpus_that_cuda_shows_are_launched_on(numbers: str | None, expected: tuple[str, ...]) -> None:
    assert chosen(("a", "b"), numbers) == expected
