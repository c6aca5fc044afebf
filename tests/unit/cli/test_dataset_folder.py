"""What belongs to a dataset on the disk: the same for `./dev drop` and for `./dev plan`."""

import os
from pathlib import Path

import pytest

from local.dataset_folder import NoDatasetError, files_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cats"
    for name in ("manifest.json", "10_sks cat/a.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"{}")
    return folder


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_of(folder)]


def test_a_folder_without_manifest_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(NoDatasetError, match=r'no manifest\.json.*"version": 1'):
        files_of(tmp_path)


def test_a_file_is_no_dataset(folder: Path) -> None:
    with pytest.raises(NoDatasetError, match="is no folder"):
        files_of(folder / "manifest.json")


def test_hidden_files_and_the_icon_of_a_folder_are_no_part_of_it(folder: Path) -> None:
    (folder / ".git").mkdir()
    for name in (".DS_Store", ".git/config", "Icon\r", "10_sks cat/Icon\r"):
        (folder / name).write_bytes(b"x")
    assert names(folder) == ["10_sks cat/a.jpg", "manifest.json"]


def test_linked_folders_and_files_are_part_of_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dogs" / "b.jpg").write_bytes(b"x")
    (folder / "5_sks dog").symlink_to(tmp_path / "dogs")
    (folder / "10_sks cat" / "c.jpg").symlink_to(tmp_path / "dogs" / "b.jpg")
    assert names(folder) == ["10_sks cat/a.jpg", "10_sks cat/c.jpg", "5_sks dog/b.jpg", "manifest.json"]


@pytest.mark.parametrize("target", ["..", "../10_sks cat"])
def test_a_link_to_a_folder_that_it_lies_in_is_refused(folder: Path, target: str) -> None:
    (folder / "10_sks cat" / "again").symlink_to(target)
    with pytest.raises(NoDatasetError, match="10_sks cat/again is a link to a folder that it lies in"):
        files_of(folder)


@pytest.mark.parametrize("target", ["nowhere.jpg", "dead.jpg"])
def test_a_link_to_nothing_is_refused(folder: Path, target: str) -> None:
    (folder / "dead.jpg").symlink_to(target)
    with pytest.raises(NoDatasetError, match=r"dead\.jpg is a link to what is not there"):
        files_of(folder)


def test_what_is_neither_a_file_nor_a_folder_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    with pytest.raises(NoDatasetError, match=r"pipe\.jpg is neither a file nor a folder"):
        files_of(folder)


@pytest.mark.parametrize("where", ["", "10_sks cat"])
def test_a_name_that_is_not_utf_8_is_refused_with_the_name_and_the_remedy(folder: Path, where: str) -> None:
    Path(os.fsdecode(os.fsencode(folder / where) + b"/Kat\x84zchen.jpg")).write_bytes(b"x")
    with pytest.raises(NoDatasetError, match=r"'Kat\\udc84zchen\.jpg' .*is not UTF-8.*convmv") as told:
        files_of(folder)
    str(told.value).encode()
