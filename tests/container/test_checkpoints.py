"""States in two slots: only whole ones of the same run count."""

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kohya_trainer.checkpoints import MARKER, CheckpointStore, fingerprint


def state(folder: Path, content: str) -> Path:
    place = folder / f"cats-step{content:0>8}-state"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_text(content, encoding="utf-8")
    (place / "optimizer.bin").write_text(content * 2, encoding="utf-8")
    return place


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    made = CheckpointStore(tmp_path / "checkpoints", "run")
    for step in (10, 20, 30):
        made.keep(
            state(tmp_path / "output", str(step)), step, 120, 40, {"cats-step00000008.safetensors": "abc"}
        )
    return made


def test_the_two_newest_states_are_kept_newest_first(store: CheckpointStore, tmp_path: Path) -> None:
    assert [checkpoint.step for checkpoint in store.found()[0]] == [30, 20]
    assert (store.found()[0][0].state / "model.safetensors").read_text(encoding="utf-8") == "30"
    assert list((tmp_path / "output").iterdir()) == []


def _between_disks(monkeypatch: pytest.MonkeyPatch, before: Callable[[], object]) -> None:
    """From here on nothing can be renamed out of its folder; `before` each copy that takes its place."""

    def rename(source: Path, target: Path) -> None:
        before()
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source)

    monkeypatch.setattr(os, "rename", rename)


def test_between_two_disks_a_state_is_copied_file_by_file_and_marked_last(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, slot = state(tmp_path / "output", "40"), store.found()[0][1].state.parent
    seen: list[tuple[bool, list[str]]] = []

    def look() -> None:
        seen.append(((slot / MARKER).exists(), sorted(path.name for path in made.iterdir())))

    _between_disks(monkeypatch, look)
    store.keep(made, 40, 120, 40, {})

    # What is copied is gone: a third state need not fit the disk.
    assert seen == [(False, ["model.safetensors", "optimizer.bin"]), (False, ["optimizer.bin"])]
    assert [checkpoint.step for checkpoint in store.found()[0]] == [40, 30]
    assert not made.exists()


def test_a_copy_that_is_cut_short_leaves_the_state_before_it(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = state(tmp_path / "output", "40")

    def end_amid_the_second() -> None:
        if not (made / "model.safetensors").exists():
            raise KeyboardInterrupt

    _between_disks(monkeypatch, end_amid_the_second)
    with pytest.raises(KeyboardInterrupt):
        store.keep(made, 40, 120, 40, {})

    assert [
        checkpoint.step for checkpoint in CheckpointStore(tmp_path / "checkpoints", "run").found()[0]
    ] == [30]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda slot: (slot / MARKER).unlink(),
        lambda slot: (slot / MARKER).write_text('{"step": 30', encoding="utf-8"),
        lambda slot: (slot / MARKER).write_text("[]", encoding="utf-8"),
        lambda slot: (slot / "state" / "optimizer.bin").unlink(),
        lambda slot: (slot / "state" / "optimizer.bin").write_text("half", encoding="utf-8"),
    ],
)
def test_a_half_written_state_does_not_exist(store: CheckpointStore, spoil: object) -> None:
    assert callable(spoil)
    spoil(store.found()[0][0].state.parent)

    assert [checkpoint.step for checkpoint in store.found()[0]] == [20]


def test_a_state_lists_what_belongs_to_it_and_what_was_copied_after_it(store: CheckpointStore) -> None:
    store.add_results({"sample/cats_000008_00.png": "def"})

    newest, older = store.found()[0]
    assert older.results == {"cats-step00000008.safetensors": "abc"}
    assert newest.results == {**older.results, "sample/cats_000008_00.png": "def"}
    assert (newest.step, newest.total, newest.batches_per_epoch) == (30, 120, 40)


def test_a_spoilt_slot_is_the_one_that_is_written_next(store: CheckpointStore, tmp_path: Path) -> None:
    (store.found()[0][0].state.parent / MARKER).unlink()

    restarted = CheckpointStore(tmp_path / "checkpoints", "run")
    restarted.keep(state(tmp_path / "output", "40"), 40, 120, 40, {})

    assert [checkpoint.step for checkpoint in restarted.found()[0]] == [40, 20]


def test_a_state_of_another_run_is_not_offered(store: CheckpointStore, tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "checkpoints", "another").found()[0] == []


def test_the_fingerprint_tells_options_datasets_and_processes_apart() -> None:
    runs = itertools.product((1, 2), "ab", (1, 2))
    prints = {fingerprint({"seed": seed}, dataset, processes) for seed, dataset, processes in runs}

    assert len(prints) == 8
    assert fingerprint({"a": 1, "b": 2}, "x", 1) == fingerprint({"b": 2, "a": 1}, "x", 1)
