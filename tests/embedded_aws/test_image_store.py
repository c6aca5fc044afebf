"""Layers are unpacked inside the image's folder, on every Python."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from local.embedded_aws import image_store
from local.embedded_aws.image_format import LayerFile, layer_of
from local.embedded_aws.image_store import ImageNotFoundError

WITH_AND_WITHOUT_FILTERS = [
    pytest.param({}, id="as Python before 3.11.4"),
    pytest.param(
        {"filter": "tar"},
        id="with Python's filter",
        marks=pytest.mark.skipif(not hasattr(tarfile, "tar_filter"), reason="this Python has no filters"),
    ),
]


@pytest.fixture(params=WITH_AND_WITHOUT_FILTERS, autouse=True)
def _filter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_store, "_FILTER", request.param)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = kind, link, mode
    return entry


def layer(*members: tarfile.TarInfo) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for entry in members:
            tar.addfile(entry, io.BytesIO())
    return gzip.compress(raw.getvalue())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("another's")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def test_a_layer_gives_its_files_with_their_modes(root: Path) -> None:
    image_store._extract_layer(layer_of([LayerFile("opt/train", b"#!/bin/sh\n", True)]), root)
    assert (root / "opt/train").read_bytes() == b"#!/bin/sh\n"
    assert (root / "opt/train").stat().st_mode & 0o111 == 0o111


def test_a_layer_is_unpacked_by_a_python_that_has_no_filters(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a Python does not take the argument at all."""
    extract, filtered = tarfile.TarFile.extract, image_store.filter_of(tarfile)
    monkeypatch.setattr(
        tarfile.TarFile, "extract", lambda tar, entry, path: extract(tar, entry, path, **filtered)
    )
    monkeypatch.setattr(image_store, "_FILTER", image_store.filter_of(object()))
    image_store._extract_layer(layer_of([LayerFile("train", b"x", False)]), root)
    assert (root / "train").read_bytes() == b"x"


def test_an_absolute_name_is_one_below_the_image(root: Path) -> None:
    image_store._extract_layer(layer(member("/opt/shared", mode=0o666)), root)
    assert (root / "opt/shared").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([member("../outside")], id="by name"),
        pytest.param([member("a/../../outside")], id="by name through a folder"),
        pytest.param([member("../.wh.outside")], id="by a whiteout"),
        pytest.param([member("up", tarfile.SYMTYPE, ".."), member("up/outside")], id="through a link"),
        pytest.param([member("hard", tarfile.LNKTYPE, "../outside")], id="by hard link"),
    ],
)
def test_nothing_outside_the_image_is_touched(root: Path, members: list[tarfile.TarInfo]) -> None:
    with pytest.raises(ImageNotFoundError, match="lies outside the image"):
        image_store._extract_layer(layer(*members), root)
    assert (root.parent / "outside").read_text() == "another's"
    assert not (root / "hard").exists()


def test_a_later_layer_removes_a_file(root: Path) -> None:
    image_store._extract_layer(layer_of([LayerFile("a", b"", False), LayerFile("b", b"", False)]), root)
    image_store._extract_layer(layer(member(".wh.a")), root)
    assert [path.name for path in root.iterdir()] == ["b"]
