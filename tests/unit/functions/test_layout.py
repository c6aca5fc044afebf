"""Which folders the trainer sees."""

from __future__ import annotations

import pytest

from fine_tuning.findings import Finding
from fine_tuning.inventory import InspectedFile
from fine_tuning.layout import Layout, lay_out
from tests.functions_data import file, unreadable


def laid_out(*paths: str, repeats: int = 10, trigger_word: str | None = "sks cat") -> Layout:
    return lay_out([file(path) for path in paths], repeats, trigger_word, ".txt")


def told(layout: Layout) -> list[tuple[str, str]]:
    return [(finding.code, finding.path) for finding in about(layout)]


def about(layout: Layout) -> list[Finding]:
    """What is found beside the captions that most of these datasets do without."""
    return [finding for finding in layout.findings if finding.code != "caption-missing"]


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
        (["10/a.jpg"], ["10_sks cat"], ["folder-without-token"]),
        (["10_/a.jpg"], ["10_sks cat"], ["folder-without-token"]),
        (["10/a.jpg", "10_sks cat/b.jpg"], ["10_sks cat again", "10_sks cat"], ["folder-without-token"]),
        (
            ["1_x/a.jpg", "reg/5/b.jpg"],
            ["1_x", "reg/5_subject"],
            ["folder-without-token", "regularization-unused"],
        ),
        (["1_x/a.jpg", "reg/2_y/b.jpg"], ["1_x", "reg/2_y"], ["regularization-unused"]),
        (["10/a.jpg", "10_/b.jpg"], ["10_sks cat", "10_sks cat again"], ["folder-without-token"] * 2),
        # What kohya_ss' folder preparation makes (dreambooth_folder_creation_gui.py), its images of samples aside.
        (["img/25_me cat/a.jpg", "reg/1_cat/b.jpg"], ["25_me cat", "reg/1_cat"], []),
        (
            ["img/25_a/a.jpg", "img/5_b/b.jpg", "preview.jpg"],
            ["25_a", "5_b"],
            ["layout-guessed", "file-outside-layout"],
        ),
        (
            ["a.jpg", "b.jpg", "old/9_b/b.jpg"],
            ["10_sks cat"],
            ["layout-guessed", "file-outside-layout"],
        ),
        (["img/25_a/a.jpg", "model/sample/b.png"], ["25_a"], ["file-outside-layout"]),
        (["set/img/3_a/a.jpg", "set/reg/1_b/b.jpg"], ["3_a", "reg/1_b"], []),
        (
            ["set/3_a/a.jpg", "set/reg/1_b/b.jpg", "reg/1_c/c.jpg"],
            ["3_a", "reg/1_b"],
            ["file-outside-layout"],
        ),
        (["photos/a.jpg", "photos/reg/1_b/b.jpg"], ["10_sks cat", "reg/1_b"], []),
        (["img/25_a/a.jpg", "img/25_a/5_b/b.jpg"], ["25_a"], ["file-outside-layout"]),
        (["2_a/a.jpg", "old/9_b/b.jpg"], ["2_a"], ["file-outside-layout"]),
        (["img/2_a/a.jpg", "old/9_b/b.jpg"], [], ["layout-unclear"]),
        (["img/2_a/a.jpg", "Regularization images/1_b/b.jpg"], ["2_a"], ["file-outside-layout"]),
        (["img/2_a/a.jpg", "img/reg/b.jpg"], ["2_a"], ["file-outside-layout"]),
        (["a.jpg", "reg/1_b/1_c/c.jpg"], ["10_sks cat"], ["file-outside-layout"]),
    ],
)
def test_folders(paths: list[str], folders: list[str], codes: list[str]) -> None:
    layout = laid_out(*paths)
    assert [folder.name for folder in layout.folders] == folders
    assert [code for code, _ in told(layout)] == codes


def test_a_flat_folder_takes_repeats_and_trigger_word_of_the_manifest() -> None:
    assert laid_out("a.jpg", repeats=3, trigger_word=None).folders[0].name == "3_subject"
    assert laid_out("a.jpg", repeats=3).folders[0].repeats == 3


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("25 sks cat", "25_sks cat"),
        ("set/25-sks cat", "25_sks cat"),
        ("sks cat_25", "25_sks cat"),
        ("0_sks", "10_sks cat"),
    ],
)
def test_repeats_that_a_lone_folder_only_seems_to_say_are_not_passed_over_in_silence(
    folder: str, name: str
) -> None:
    layout = laid_out(f"{folder}/a.jpg")
    (finding,) = about(layout)
    assert (finding.code, finding.severity, finding.path) == ("layout-guessed", "warning", folder)
    assert layout.folders[0].name == "10_sks cat"
    assert "trained on as 10_sks cat" in finding.message
    assert f'Name it {name}, or write "repeats": 10 into' in finding.remedy
    assert not about(lay_out([file(f"{folder}/a.jpg")], 10, None, ".txt", repeats_given=True))


@pytest.mark.parametrize(
    ("paths", "used"),
    [
        (["a.jpg", "img/5_b/b.jpg"], "beside the manifest"),
        (["a.jpg", "img/5_b/b.jpg", "img/old/5_c/c.jpg"], "in img"),
        (["a.jpg", "old/5_b/b.jpg", "older/5_b/b.jpg", "older/5_b/c.jpg"], "beside the manifest"),
        (["a.jpg", "b.jpg", "img/5_b/b.jpg"], "beside the manifest"),
        (["a.jpg", "b.jpg", "c.jpg", "old/5_b/b.jpg", "older/5_b/b.jpg"], "beside the manifest"),
    ],
)
def test_images_beside_the_manifest_and_in_folders_below_another_are_not_mixed(
    paths: list[str], used: str
) -> None:
    (guess,) = (finding for finding in laid_out(*paths).findings if finding.code == "layout-guessed")
    assert guess.message.endswith(f"those {used} are trained on.")


@pytest.mark.parametrize(
    "paths",
    [
        ["a.jpg", "a.txt", "originals/2024_06_12/a.jpg", "originals/2024_06_12/b.jpg"],
        ["a.jpg", "raw/1_day/a.nef", "raw/1_day/b.nef"],
        ["trip/2024_06_12/a.jpg"],
    ],
)
def test_folders_below_another_one_that_name_a_day_or_hold_no_image_are_not_trained_on_by_their_names(
    paths: list[str],
) -> None:
    assert [folder.name for folder in laid_out(*paths).folders] == ["10_sks cat"]
    assert {code for code, _ in told(laid_out(*paths))} <= {"file-outside-layout"}


def test_a_folder_of_raw_files_alone_is_no_home_beside_one_of_images() -> None:
    layout = laid_out("img/10_x/a.jpg", "raw/1_day/a.nef", "raw/1_day/b.nef")
    assert [folder.name for folder in layout.folders] == ["10_x"]
    assert told(layout) == [("file-outside-layout", f"raw/1_day/{name}.nef") for name in "ab"]


def test_a_few_old_images_that_say_their_repeats_do_not_stand_for_more_in_another_folder() -> None:
    layout = laid_out("photos/a.jpg", "photos/b.jpg", "old/10_x/a.jpg")
    assert (told(layout), layout.folders) == ([("layout-unclear", "")], ())


@pytest.mark.parametrize(
    ("folder", "given", "name", "codes"),
    [
        ("img/25_sks cat", False, "25_sks cat", []),
        ("img/25_sks cat", True, "7_sks cat", []),
        ("session/01_portraits", False, "01_portraits", ["layout-guessed"]),
        ("session/01_portraits", True, "7_portraits", []),
        ("25_portraits", False, "25_portraits", []),
    ],
)
def test_of_a_lone_folder_below_another_the_manifests_repeats_count(
    folder: str, given: bool, name: str, codes: list[str]
) -> None:
    layout = lay_out([file(f"{folder}/a.jpg")], 7, "sks cat", ".txt", repeats_given=given)
    assert [one.name for one in layout.folders] == [name]
    assert [code for code, _ in told(layout)] == codes


def test_folders_that_only_seem_to_say_repeats_are_told_how_to_be_named() -> None:
    (finding,) = laid_out("dogs/a.jpg", "25 cat/b.jpg").findings
    assert "25 cat, dogs" in finding.message
    assert "for example 25_cat" in finding.remedy


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("1000_x", None),
        ("1001_x", "says 1001 repeats; 1000 is the limit."),
        ("2024", "says 2024 repeats; 1000 is the limit. Is it a year?"),
        ("reg/1987_x", "says 1987 repeats; 1000 is the limit. Is it a year?"),
    ],
)
def test_a_year_is_not_taken_for_repeats(folder: str, said: str | None) -> None:
    layout = laid_out("1_z/b.jpg" if folder.startswith("reg") else f"{folder}/b.jpg", f"{folder}/a.jpg")
    found = [finding for finding in layout.findings if finding.code == "repeats-too-many"]
    assert [f.severity for f in found] == ([] if said is None else ["error"])
    for finding in found:
        assert finding.path == folder
        assert said is not None
        assert said in finding.message
        assert f"10_{'sks cat' if folder == '2024' else 'x'}" in finding.remedy


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


@pytest.mark.parametrize(
    ("folder", "said", "remedy"),
    [
        ("10 cat", "does not say", "10_cat"),
        ("x12-sks cat", "does not say", "12_sks cat"),
        ("cat 7", "does not say", "7_cat"),
        ("0_cat", "0 repeats", "<repeats>_<token>"),
        ("2_dog/more", "too deep", "To train on it, move it into 2_dog."),
        ("2_dog/2_dog", "too deep", "To train on it, move it into 2_dog."),
        ("photos", "does not say", "<repeats>_<token>"),
        (".", "beside the folders", "<repeats>_<token>"),
    ],
)
def test_a_folder_that_is_passed_over_is_told_why_and_how_to_name_it(
    folder: str, said: str, remedy: str
) -> None:
    layout = laid_out("2_dog/b.jpg", f"{folder}/a.jpg" if folder != "." else "a.jpg")
    (finding,) = about(layout)
    assert finding.code == "file-outside-layout"
    assert said in finding.message
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("regularization/1_cat/r.jpg", "Name the folder reg/1_cat."),
        ("Reg/1_cat/r.jpg", "Name the folder reg/1_cat."),
        ("img/Regularisation images/1_cat/r.jpg", "Name the folder img/reg/1_cat."),
        ("old/reg/1_cat/r.jpg", "Name the folder reg/1_cat."),
        ("reg/5 cat/r.jpg", "Name the folder reg/5_cat."),
        ("reg/cats/r.jpg", "Move it into reg/<repeats>_<class>, for example reg/1_cat."),
        ("reg/r.jpg", "Move it into reg/<repeats>_<class>, for example reg/1_cat."),
        ("reg/0_cat/r.jpg", "Move it into reg/<repeats>_<class>, for example reg/1_cat."),
        ("reg/1_cat/more/r.jpg", "Move it into reg/<repeats>_<class>, for example reg/1_cat."),
        ("img/old/3_dog/d.jpg", "Name the folder img/3_dog."),
        ("img/3 dog/d.jpg", "Name the folder img/3_dog."),
        ("img/3 dog/d.txt", "Name the folder img/3_dog."),
        ("readme.txt", "Put it beside its image, or remove it."),
        (
            "img/2024/9999_dog/d.jpg",
            "To train on it, move it into a folder named <repeats>_<token>, for example img/10_sks cat.",
        ),
        (
            "dogs/d.jpg",
            "To train on it, move it into a folder named <repeats>_<token>, for example img/10_sks cat.",
        ),
    ],
)
def test_no_remedy_makes_an_image_for_regularization_one_to_train_on_nor_has_it_passed_over_again(
    path: str, remedy: str
) -> None:
    (finding,) = about(laid_out("img/2_me/a.jpg", path))
    assert (finding.code, finding.path, finding.remedy) == ("file-outside-layout", path, remedy)
    assert ("regularization images are looked for" in finding.message) == ("reg/" in remedy)
    if remedy.startswith("Name"):
        heeded = f"{remedy.removeprefix('Name the folder ').rstrip('.')}/x.jpg"
        (used,) = (f for f in laid_out("img/2_me/a.jpg", heeded).folders if f.files[0].source == heeded)
        assert used.is_regularization == ("reg/" in remedy)


def targets(*paths: str) -> dict[str, list[str]]:
    """Source → targets, of one folder."""
    (folder,) = laid_out(*(f"1_x/{path}" for path in paths)).folders
    named: dict[str, list[str]] = {}
    for placed in folder.files:
        named.setdefault(placed.source.removeprefix("1_x/"), []).append(placed.target)
    return named


def test_an_extension_that_the_trainer_does_not_find_is_staged_as_one_that_it_finds() -> None:
    assert targets("a.Jpg", "b.JPG", "c.jpg", "a.txt") == {
        "a.Jpg": ["a.jpg"],
        "a.txt": ["a.txt"],
        "b.JPG": ["b.JPG"],
        "c.jpg": ["c.jpg"],
    }
    assert told(laid_out("1_x/a.Jpg")) == [("image-extension-case", "1_x/a.Jpg")]


def test_a_jpeg_by_another_name_is_staged_as_a_jpeg() -> None:
    assert targets("a.jfif", "b.JPE", "a.txt") == {
        "a.jfif": ["a.jpg"],
        "a.txt": ["a.txt"],
        "b.JPE": ["b.jpg"],
    }
    (finding,) = about(laid_out("1_x/a.jfif"))
    assert (finding.code, finding.severity) == ("image-extension-case", "note")
    assert "staged as .jpg" in finding.message


def test_a_missing_caption_is_told_of_images_to_train_on_only() -> None:
    layout = laid_out("10_x/a.jpg", "10_x/b.jpg", "10_x/b.caption", "reg/1_y/c.jpg", "old/d.jpg")
    missing = [finding for finding in layout.findings if finding.code == "caption-missing"]
    assert [(f.severity, f.path) for f in missing] == [("warning", "10_x/a.jpg")]
    assert "a.txt" in missing[0].remedy


@pytest.mark.parametrize(
    ("paths", "severities"),
    [
        (["10_x/a.jpg", "10_x/a.NEF"], {"10_x/a.NEF": "note image-format-unsupported"}),
        (["10_x/a.jpg", "10_x/A.heic"], {"10_x/A.heic": "note image-format-unsupported"}),
        (["10_x/a.jpg", "10_x/b.heic"], {"10_x/b.heic": "error image-format-unsupported"}),
        (["10_x/a.jpg", "raw/a.nef", "b.psd"], dict.fromkeys(["raw/a.nef", "b.psd"], "warning file-outside-layout")),
        (["a.jpg", "raw/a.nef"], {"raw/a.nef": "warning file-outside-layout"}),
        (["photos/a.jpg", "raw/a.nef"], {"raw/a.nef": "warning file-outside-layout"}),
        (
            ["10_x/a.heic", "a.jpg"],
            {"10_x/a.heic": "error image-format-unsupported", "a.jpg": "warning file-outside-layout"},
        ),
        (["photos/a.heic"], {"photos/a.heic": "error image-format-unsupported"}),
        (["a.heic"], {"a.heic": "error image-format-unsupported"}),
        (["10_x/a.jpg", "10_x/._a.heic", "10_x/a.mov"], {}),
    ],
)  # fmt: skip
def test_an_image_that_the_trainer_does_not_read_refuses_a_dataset_only_where_nothing_stands_for_it(
    paths: list[str], severities: dict[str, str]
) -> None:
    found = {finding.path: f"{finding.severity} {finding.code}" for finding in about(laid_out(*paths))}
    assert found == severities


def test_files_that_are_not_used_are_known() -> None:
    layout = laid_out("1_x/a.jpg", "1_x/a.txt", "1_x/a.caption", "1_x/b.txt", "old/c.jpg", "readme.txt")
    assert layout.not_used == {"1_x/a.caption", "1_x/b.txt", "old/c.jpg", "readme.txt"}


def test_images_of_one_name_are_staged_apart_each_with_the_caption() -> None:
    assert targets("a.jpg", "a.png", "a.Jpg", "a-png.png", "a.txt") == {
        "a.Jpg": ["a.jpg"],
        "a.jpg": ["a-jpg.jpg"],
        "a.png": ["a-png-.png"],
        "a-png.png": ["a-png.png"],
        "a.txt": ["a-jpg.txt", "a-png-.txt", "a.txt"],
    }


@pytest.mark.parametrize("caption", ["caf\u00e9.txt", "cafe\u0301.txt", "CAF\u00c9.TXT"])
def test_a_caption_is_found_whatever_system_wrote_its_name(caption: str) -> None:
    image = "cafe\u0301.jpg"
    assert targets(image, caption) == {image: [image], caption: ["cafe\u0301.txt"]}


def test_a_raw_file_takes_no_caption_from_the_image_beside_it() -> None:
    assert targets("img.jpg", "IMG.HEIC", "IMG.txt") == {"img.jpg": ["img.jpg"], "IMG.txt": ["img.txt"]}


def test_a_caption_of_the_very_name_comes_first() -> None:
    assert targets("a.jpg", "A.txt", "a.txt")["a.txt"] == ["a.txt"]
    assert not about(laid_out("1_x/a.jpg", "1_x/A.jpg", "1_x/\u0041.txt", "1_x/a.caption"))


def test_the_configuration_says_which_of_two_captions_counts() -> None:
    files = [file("1_x/a.jpg"), file("1_x/a.txt"), file("1_x/a.caption")]
    (folder,) = lay_out(files, 10, None, ".txt", ".caption").folders
    assert [(f.source, f.target) for f in folder.files] == [
        ("1_x/a.caption", "a.txt"),
        ("1_x/a.jpg", "a.jpg"),
    ]


def test_a_caption_with_both_extensions_is_told_its_name() -> None:
    (finding,) = about(laid_out("1_x/a.jpg", "1_x/a.jpg.txt"))
    assert (finding.code, finding.remedy) == ("caption-without-image", "Name it a.txt.")


def test_an_unreadable_image_is_in_no_folder_and_its_caption_waits_for_a_better_one() -> None:
    files: list[InspectedFile] = [
        file("1_x/a.jpg"),
        file("1_x/a.txt"),
        unreadable("1_x/b.jpg"),
        file("1_x/b.txt"),
    ]
    files += [unreadable("1_x/c.jpg"), file("1_x/d.heic"), file("1_x/d.txt")]
    layout = lay_out(files, 10, None, ".txt")
    assert [placed.target for placed in layout.folders[0].files] == ["a.jpg", "a.txt"]
    assert told(layout) == [("image-format-unsupported", "1_x/d.heic")]
    assert [finding.path for finding in layout.findings if finding.code == "caption-missing"] == ["1_x/c.jpg"]
    assert not layout.not_used
