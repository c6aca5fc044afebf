"""Whether the demo builds the training image for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.cli import image_machine

PREPARED = {"EMBEDDED_AWS_BUILDER": "buildah", "EMBEDDED_AWS_BUILD_ARGUMENTS": "--x"}


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that can build, and the source of an image."""
    container = tmp_path / "container"
    (container / "requirements").mkdir(parents=True)
    (container / "requirements" / "torch.txt").write_text("torch==1")
    (container / "Dockerfile").write_text("FROM base")
    (container / "train").write_text("one")
    monkeypatch.setattr(image_machine, "CONTAINER", container)
    monkeypatch.setattr(image_machine, "BUILT", tmp_path / "built")
    monkeypatch.setattr(image_machine, "missing_tools", list)
    monkeypatch.setattr(image_machine, "prepare", lambda: dict(PREPARED))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for name in ("EMBEDDED_AWS_BUILDER", *image_machine.SOURCES):
        monkeypatch.delenv(name, raising=False)
    return container


def offered(**environment: str) -> tuple[dict[str, str], str]:
    said: list[str] = []
    return image_machine.offered(environment, said.append), "\n".join(said)


def test_a_first_build_is_only_spoken_of(container: Path) -> None:
    builder, said = offered()

    assert builder == {}
    assert "EMBEDDED_AWS_BUILDER=buildah ./dev demo" in said


def test_what_takes_seconds_is_built_unless_that_is_refused(container: Path) -> None:
    image_machine.keep()
    (container / "train").write_text("two")

    assert offered()[0] == PREPARED
    assert offered(EMBEDDED_AWS_BUILDER="none") == ({}, "")


def test_who_asks_gets_a_build_however_long_it_takes(container: Path) -> None:
    assert offered(EMBEDDED_AWS_BUILDER="buildah") == (PREPARED, "")


@pytest.mark.parametrize("change", ["requirements/torch.txt", "Dockerfile"])
def test_a_change_below_the_projects_own_code_is_a_first_build_again(container: Path, change: str) -> None:
    image_machine.keep()
    (container / change).write_text("changed")

    assert offered()[0] == {}


def test_another_place_of_the_trainers_source_is_a_first_build_again(container: Path) -> None:
    image_machine.keep()

    assert offered(KOHYA_CHECKOUT="elsewhere")[0] == {}


@pytest.mark.parametrize(("tools", "user"), [(["buildah"], 0), ([], 1000)])
def test_a_machine_that_cannot_build_is_not_spoken_to(
    container: Path, monkeypatch: pytest.MonkeyPatch, tools: list[str], user: int
) -> None:
    image_machine.keep()
    monkeypatch.setattr(image_machine, "missing_tools", lambda: tools)
    monkeypatch.setattr("os.geteuid", lambda: user)

    assert offered() == ({}, "")
