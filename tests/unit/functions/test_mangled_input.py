"""No input, however mangled, crashes what judges it or is accepted with a broken image in it."""

from __future__ import annotations

import io
import json
import random
from pathlib import PurePosixPath
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from PIL import Image

from fine_tuning import image_check
from fine_tuning.findings import has_errors
from fine_tuning.run import TOML_NAME
from tests.functions_data import EVENTS, RUN
from tests.fuzz import preflight
from tests.fuzz.mutation import mutated
from tests.judging import judged_objects

REPORT = jsonschema_rs.validator_for(json.loads((EVENTS / "report.schema.json").read_bytes()))
# sd-scripts, library/train_util.py, IMAGE_EXTENSIONS, without the plugins that the image does not have.
FOUND = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".PNG", ".JPG", ".JPEG", ".WEBP", ".BMP")

mangled_images = st.builds(
    lambda seed, number: mutated(seed, random.Random(number), head=200),
    st.sampled_from(preflight.images()),
    st.integers(0, 10**9),
)
parts = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=12)
folders = st.sampled_from(["", "10_x/", "3_y z/", "reg/1_x/", "10/", "x/", "10_x/deep/", "../"]) | parts.map(
    "{}/".format
)
stems = st.sampled_from(["a", "A", "b", "caf\u00e9", "cafe\u0301", "a.jpg", "._a", " "]) | parts
suffixes = st.sampled_from(
    [
        *(".jpg", ".Jpg", ".JPG", ".jfif", ".png", ".webp", ".bmp"),
        ".gif",
        ".heic",
        ".txt",
        ".caption",
        ".md",
        "",
    ]
)
paths = st.builds("{}{}{}".format, folders, stems, suffixes)
contents = (
    mangled_images
    | st.sampled_from(preflight.images())
    | st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
# Names and contents that mostly go through, so that what slips through is seen.
likely_paths = st.builds(
    "{}/{}{}".format,
    st.sampled_from(["10_x", "3_y", "reg/1_x"]),
    st.sampled_from(["a", "A", "b", "caf\u00e9", "cafe\u0301"]),
    st.sampled_from([".jpg", ".Jpg", ".png", ".webp", ".txt", ".caption"]),
)
captions = st.sampled_from([b"a cat", b"a dog\non a mat", b"\n", b"", b"\xef\xbb\xbfa cat", b"caf\xe9"])
likely_files = likely_paths.flatmap(
    lambda path: st.tuples(
        st.just(path),
        captions
        if path.endswith((".txt", ".caption"))
        else st.sampled_from(preflight.images()[:8]) | mangled_images,
    )
)
GOOD = {"10_x/g.png": preflight.images()[5], "10_x/g.txt": b"a cat"}
documents = st.one_of(
    st.just(b'{"version": 1}'),
    st.just(b'{"version": 1, "trigger_word": "cat", "preset": "sample-2024"}'),
    st.builds(lambda number: preflight.make_manifest(random.Random(number)), st.integers(0, 10**9)),
)
tomls = (
    st.none()
    | st.none()
    | st.builds(lambda number: preflight.make_toml(random.Random(number)), st.integers(0, 10**9))
)


def trained_on(content: bytes) -> Image.Image:
    """As the trainer loads an image (train_util.load_image); raises where it would stop."""
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300)
@given(mangled_images)
def test_an_image_that_is_accepted_is_one_that_the_trainer_loads(content: bytes) -> None:
    size, findings = image_check.check("10_x/a.jpg", content)
    assert (size is None) == has_errors(findings)
    if size is not None:
        assert trained_on(content).size == size


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150)
@given(st.dictionaries(paths, contents, max_size=3).map(lambda files: {**GOOD, **files}), documents, tomls)
def test_no_dataset_crashes_the_judgement(
    files: dict[str, bytes], document: bytes, toml: bytes | None
) -> None:
    judge(files if toml is None else {**files, TOML_NAME: toml}, document)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200)
@given(st.lists(likely_files, max_size=4).map(lambda files: {**GOOD, **dict(files)}))
def test_no_dataset_is_accepted_with_a_broken_file(files: dict[str, bytes]) -> None:
    judge(files, b'{"version": 1}')


def judge(files: dict[str, bytes], document: bytes) -> None:
    """Judges, and where the verdict is good, holds every staged file against how the trainer reads it."""
    report, objects = judged_objects(files, document)
    assert REPORT.is_valid(report)
    assert report["accepted"] is not any(finding["severity"] == "error" for finding in report["findings"])
    event(f"accepted: {report['accepted']}")
    if not report["accepted"]:
        return
    plan: dict[str, Any] = json.loads(objects.contents[RUN.plan_key])
    targets = [
        f"{folder['folder']}/{file['target']}" for folder in plan["layout"] for file in folder["files"]
    ]
    assert len(set(targets)) == len(targets)
    for file in (file for folder in plan["layout"] for file in folder["files"]):
        content = files[file["source"]]
        assert "/" not in file["target"]
        if file["target"].endswith(FOUND):
            trained_on(content)
        else:
            assert PurePosixPath(file["target"]).suffix == plan["caption_extension"]
            assert content.decode("utf-8")  # train_util.read_caption stops at none, and at an empty one


@settings(max_examples=60)
@given(st.sampled_from(preflight.images()), st.sampled_from(preflight.images()), st.integers(0, 10**9))
def test_a_good_image_beside_a_broken_one_changes_nothing(good: bytes, other: bytes, number: int) -> None:
    """A dataset is accepted only where each of its images would be on its own."""
    broken = mutated(other, random.Random(number), head=200)
    alone, _ = image_check.check("10_x/b.jpg", broken)
    report, _ = judged_objects(
        {"10_x/a.jpg": good, "10_x/a.txt": b"a cat", "10_x/b.jpg": broken, "10_x/b.txt": b"a cat"},
        b'{"version": 1}',
    )
    assert not (alone is None and report["accepted"])
