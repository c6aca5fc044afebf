"""Exactly the inspected files, exactly where the plan puts them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from kohya_trainer.environment import Folders
from kohya_trainer.errors import DatasetChangedError, InvalidConfigurationError, NoDataError
from kohya_trainer.inputs import Inputs, InspectedFile, Placement
from kohya_trainer.staging import stage

FILES = {"flat/a.jpg": b"pixels", "flat/a.txt": b"sks cat", "reg/1_cat/r.png": b"other"}
PLACES = (
    Placement("10_sks cat", "flat/a.jpg", "a.jpg"),
    Placement("10_sks cat", "flat/a.txt", "a.txt"),
    Placement("reg/1_cat", "reg/1_cat/r.png", "r.png"),
)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path / "ml")
    for name, content in FILES.items():
        path = made.dataset / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return made


def inputs(placements: tuple[Placement, ...] = PLACES, files: Mapping[str, bytes] = FILES) -> Inputs:
    inventory = {
        name: InspectedFile(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    }
    return Inputs(config={}, placements=placements, inventory=inventory)


def test_files_go_where_the_plan_puts_them_and_nothing_else_does(folders: Folders) -> None:
    (folders.dataset / "flat" / "extra.jpg").write_bytes(b"extra")

    staged = stage(inputs(), folders)

    assert (staged.training / "10_sks cat" / "a.jpg").read_bytes() == b"pixels"
    assert sorted(path.name for path in staged.training.rglob("*.*")) == ["a.jpg", "a.txt"]
    assert staged.regularization is not None
    assert (staged.regularization / "1_cat" / "r.png").read_bytes() == b"other"
    assert (staged.files, staged.images) == (3, 1)


def test_staging_costs_no_second_copy_and_can_be_repeated(folders: Folders) -> None:
    first = stage(inputs(), folders)
    second = stage(inputs(), folders)

    assert first == second
    assert (second.training / "10_sks cat" / "a.jpg").samefile(folders.dataset / "flat" / "a.jpg")


@pytest.mark.parametrize("content", [b"PIXELS", b"pixels and more", b""])
def test_a_changed_file_is_refused_by_name(folders: Folders, content: bytes) -> None:
    (folders.dataset / "flat" / "a.jpg").write_bytes(content)

    with pytest.raises(DatasetChangedError, match=r"flat/a\.jpg has changed"):
        stage(inputs(), folders)


def test_a_missing_file_is_refused_by_name(folders: Folders) -> None:
    (folders.dataset / "flat" / "a.txt").unlink()

    with pytest.raises(DatasetChangedError, match=r"flat/a\.txt is missing"):
        stage(inputs(), folders)


def test_a_file_that_was_never_inspected_is_refused(folders: Folders) -> None:
    with pytest.raises(InvalidConfigurationError, match="not in the inventory"):
        stage(inputs(files={"flat/a.jpg": b"pixels"}), folders)


@pytest.mark.parametrize(
    "placement",
    [
        Placement("10_x", "flat/a.jpg", "../../../escape.jpg"),
        Placement("../10_x", "flat/a.jpg", "a.jpg"),
        Placement("/etc", "flat/a.jpg", "a.jpg"),
        Placement("10_x", "flat/a.jpg", ""),
    ],
)
def test_nothing_is_placed_outside_the_staged_folder(folders: Folders, placement: Placement) -> None:
    with pytest.raises(InvalidConfigurationError, match="leaves the dataset"):
        stage(inputs((placement,)), folders)


def test_two_files_for_one_place_are_refused(folders: Folders) -> None:
    twice = (PLACES[0], Placement("10_sks cat", "reg/1_cat/r.png", "a.jpg"))

    with pytest.raises(InvalidConfigurationError, match=r"two files at 10_sks cat/a\.jpg"):
        stage(inputs(twice), folders)


@pytest.mark.parametrize("places", [PLACES[1:2], (Placement("0_none", "flat/a.jpg", "a.jpg"),)])
def test_a_plan_without_an_image_to_train_on_is_refused(
    folders: Folders, places: tuple[Placement, ...]
) -> None:
    with pytest.raises(NoDataError):
        stage(inputs(places), folders)


def test_the_digest_depends_on_content_and_place(folders: Folders) -> None:
    whole = stage(inputs(), folders).digest
    moved = stage(inputs((Placement("5_sks cat", "flat/a.jpg", "a.jpg"), *PLACES[1:])), folders).digest

    assert len({whole, moved}) == 2


def test_the_older_layout_is_taken_as_it_is_or_from_the_folder_that_its_toml_names(folders: Folders) -> None:
    place = folders.dataset / "img" / "10_sks cat"
    place.mkdir(parents=True)
    (place / "a.png").write_bytes(b"pixels")

    staged = stage(Inputs(config={"train_data_dir": "/opt/ml/input/data/dataset/img"}), folders)

    assert staged.training == folders.dataset / "img"
    assert staged.images == 1
    with pytest.raises(NoDataError):
        stage(Inputs(config={"train_data_dir": "../.."}), folders)


@pytest.mark.parametrize(
    ("options", "captions", "remedy"),
    [
        ({}, ".txt", 'Set caption_extension = ".txt" in kohya-sdxl-config.toml.'),
        ({"caption_extension": ".txt"}, ".caption", 'Set caption_extension = ".caption"'),
        ({"caption_extention": ".text"}, ".txt", 'Set caption_extension = ".txt"'),
        ({"caption_extension": "txt"}, ".txt", None),
        ({}, ".caption", None),
        ({}, "", None),
    ],
)
def test_captions_that_the_older_layouts_trainer_would_not_see_are_told(
    folders: Folders, options: dict[str, str], captions: str, remedy: str | None
) -> None:
    place = folders.dataset / "10_sks cat"
    place.mkdir(parents=True)
    (place / "a.png").write_bytes(b"pixels")
    (place / f"a{captions or '.json'}").write_text("sks cat")

    if remedy is None:
        assert stage(Inputs(config=options), folders).images == 1
        return
    with pytest.raises(InvalidConfigurationError, match="would train without them") as refused:
        stage(Inputs(config=options), folders)
    assert refused.value.remedy.startswith(remedy)
