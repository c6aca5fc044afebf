"""Which folders the trainer sees."""

from __future__ import annotations

import pytest

from fine_tuning.inventory import InspectedFile
from fine_tuning.layout import Layout, lay_out
from tests.functions_data import file, unreadable


def laid_out(*paths: str, repeats: int = 10, trigger_word: str | None = "sks cat") -> Layout:
    return lay_out([file(path) for path in paths], repeats, trigger_word, ".txt")


def told(layout: Layout) -> list[tuple[str, str]]:
    return [(finding.code, finding.path) for finding in layout.findings]


@pytest.mark.parametrize(
    ("paths", "folders", "codes"),
    [
        (["10_cat/a.jpg", "10_cat/a.txt", "3_dog/b.png"], ["10_cat", "3_dog"], []),
        (["a.jpg", "a.txt"], ["10_sks cat"], []),
        (["photos/a.jpg"], ["10_sks cat"], []),
        (["10_cat/a.jpg", "reg/1_animal/b.jpg"], ["10_cat", "reg/1_animal"], []),
        (["a.jpg", "reg/1_animal/b.jpg"], ["10_sks cat", "reg/1_animal"], []),
        (["10_cat/a.jpg", "b.jpg", "more/c.jpg"], ["10_cat"], ["file-outside-layout", "file-outside-layout"]),
        (["10_cat/deep/a.jpg", "10_cat/b.jpg"], ["10_cat"], ["file-outside-layout"]),
        (["0_cat/a.jpg", "2_cat/b.jpg"], ["2_cat"], ["file-outside-layout"]),
        (["x/a.jpg", "y/b.jpg"], [], ["layout-unclear"]),
        (["reg/1_animal/b.jpg"], ["reg/1_animal"], []),
        (["10/a.jpg"], ["10"], []),
    ],
)
def test_folders(paths: list[str], folders: list[str], codes: list[str]) -> None:
    layout = laid_out(*paths)
    assert [folder.name for folder in layout.folders] == folders
    assert [code for code, _ in told(layout)] == codes


def test_a_flat_folder_takes_repeats_and_trigger_word_of_the_manifest() -> None:
    assert laid_out("a.jpg", repeats=3, trigger_word=None).folders[0].name == "3_subject"
    assert laid_out("a.jpg", repeats=3).folders[0].repeats == 3


def test_captions_get_the_one_extension_that_the_trainer_looks_for() -> None:
    (folder,) = laid_out("1_x/a.jpg", "1_x/a.caption", "1_x/b.jpg", "1_x/b.caption", "1_x/b.txt").folders
    assert {(f.source, f.target) for f in folder.files if f.target.endswith(".txt")} == {
        ("1_x/a.caption", "a.txt"),
        ("1_x/b.txt", "b.txt"),
    }


def test_what_is_passed_over_is_told() -> None:
    layout = laid_out("1_x/a.jpg", "1_x/a.png", "1_x/a.txt", "1_x/a.caption", "1_x/lost.txt")
    assert sorted(told(layout)) == [
        ("caption-repeated", "1_x/a.caption"),
        ("caption-without-image", "1_x/lost.txt"),
        ("image-name-shared", "1_x/a"),
    ]


def test_an_unreadable_image_is_in_no_folder() -> None:
    files: list[InspectedFile] = [file("1_x/a.jpg"), unreadable("1_x/b.jpg"), file("1_x/b.txt")]
    (folder,) = lay_out(files, 10, None, ".txt").folders
    assert [placed.target for placed in folder.files] == ["a.jpg"]
