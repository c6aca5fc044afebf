"""Samples and models in between, kept beside the states."""

import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from kohya_trainer.kept_results import ResultKeeper, bring_back, wait_for, whole

MODEL = "cats-step00000008.safetensors"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    made = tmp_path / "output"
    (made / "sample").mkdir(parents=True)
    return made


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def keeper(output: Path, kept: Path, **listed: str) -> ResultKeeper:
    return ResultKeeper(output, kept, "cats.safetensors", listed)


def copied(results: ResultKeeper) -> dict[str, str]:
    copies = results.notice()
    wait_for(copies, 10)
    return whole(copies)


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_model_that_was_still_being_written_is_kept_whole_with_the_next_state(
    output: Path, kept: Path
) -> None:
    (output / MODEL).write_bytes(b"half")
    (output / "cats.safetensors").write_bytes(b"the last")
    (output / "best").mkdir()
    (output / "best" / "00000004.safetensors").write_bytes(b"the best")
    results = keeper(output, kept)
    assert copied(results) == {MODEL: digest(b"half")}
    (output / MODEL).write_bytes(b"half and half")

    assert copied(results) == {MODEL: digest(b"half and half")}
    assert contents(kept) == {MODEL: b"half and half"}


def test_what_the_trainer_has_removed_is_not_kept_any_longer(output: Path, kept: Path) -> None:
    (output / MODEL).write_bytes(b"model")
    results = keeper(output, kept)
    copied(results)
    (output / MODEL).unlink()

    assert copied(results) == {}
    results.drop_removed()

    assert contents(kept) == {}


@pytest.mark.parametrize("place", ["before it is looked at", "before it is copied"])
def test_what_the_trainer_removes_meanwhile_is_passed_over(
    place: str, output: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = output / MODEL, output / "cats-step00000016.safetensors"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    copy, look = shutil.copyfile, Path.stat

    def copyfile(source: Path, target: Path) -> Any:
        old.unlink(missing_ok=True)
        return copy(source, target)

    def stat(path: Path, **options: Any) -> Any:
        if path == old:
            path.unlink(missing_ok=True)
        return look(path, **options)

    if place == "before it is copied":
        monkeypatch.setattr(shutil, "copyfile", copyfile)
    else:
        monkeypatch.setattr(Path, "stat", stat)

    assert copied(keeper(output, kept)) == {new.name: digest(b"new")}
    assert contents(kept) == {new.name: b"new"}


def test_what_was_brought_back_is_not_copied_once_more(
    output: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (output / MODEL).write_bytes(b"model")
    results = keeper(output, kept, **{MODEL: "as it was listed"})
    monkeypatch.delattr(shutil, "copyfile")

    assert copied(results) == {MODEL: "as it was listed"}


def test_only_what_is_listed_with_the_state_comes_back(output: Path, kept: Path) -> None:
    """Whatever else lies there was deleted once, is another run's, or is half a copy."""
    (kept / "sample").mkdir(parents=True)
    picture, later = "sample/cats_000008_00_20261127120000.png", "cats-step00000024.safetensors"
    absent, torn = "cats-step00000012.safetensors", "cats-step00000016.safetensors"
    listed = {name: digest(name.encode()) for name in (MODEL, picture, later, absent, torn)}
    for name in (MODEL, picture, later, "cats-step00000004.safetensors", f"{MODEL}.partial"):
        (kept / name).write_bytes(name.encode())
    (kept / torn).write_bytes(b"another run's")

    missing = bring_back(kept, output, listed, 20)

    assert missing == [absent, torn]
    assert contents(output) == {name: name.encode() for name in (MODEL, picture)}
    assert contents(kept) == contents(output)


def test_where_a_run_begins_anew_nothing_comes_back(output: Path, kept: Path) -> None:
    kept.mkdir()
    (kept / MODEL).write_bytes(b"model")

    assert bring_back(kept, output, {}, 0) == []
    assert contents(output) == contents(kept) == {}
