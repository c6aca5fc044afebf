"""The trainer's source is cloned by tag and checked by commit; here from repositories on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from build_steps.clone_kohya import SCRIPT, SourceError, clone, expected_commits

from tests.functions_data import REPOSITORY

LOCAL = ("-c", "protocol.file.allow=always", "-c", "user.name=t", "-c", "user.email=t@localhost")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *LOCAL, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, name: str) -> str:
    (folder / name).write_text("x")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", name)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def kohya(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, str]]:
    """A repository with a submodule, tagged v1; and its commits."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.file.allow")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "always")
    scripts, whole = tmp_path / "sd-scripts", tmp_path / "kohya_ss"
    for folder in (scripts, whole):
        folder.mkdir()
        git(folder, "init", "--quiet", "--initial-branch", "main")
    trainer = commit(scripts, SCRIPT)
    git(whole, "submodule", "--quiet", "add", f"file://{scripts}", "sd-scripts")
    own = commit(whole, "README.md")
    git(whole, "tag", "v1")
    expected = {"KOHYA_SS_COMMIT": own, "TRAINER_COMMIT": trainer, "TRAINER_FOLDER": "sd-scripts"}
    return f"file://{whole}", expected


def test_the_expected_commits_are_cloned_without_history(
    kohya: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    repository, expected = kohya

    clone("v1", expected, tmp_path / "made", repository)

    assert (tmp_path / "made/sd-scripts" / SCRIPT).is_file()
    assert not list((tmp_path / "made").rglob(".git"))
    assert (tmp_path / "made/TRAINER_COMMIT").read_text().strip() == expected["TRAINER_COMMIT"]


@pytest.mark.parametrize("name", ["KOHYA_SS_COMMIT", "TRAINER_COMMIT"])
def test_a_tag_that_leads_elsewhere_is_refused(
    kohya: tuple[str, dict[str, str]], tmp_path: Path, name: str
) -> None:
    repository, expected = kohya

    with pytest.raises(SourceError, match=rf"the {name} of v1 is .* the tag was moved"):
        clone("v1", {**expected, name: "0" * 40}, tmp_path / "made", repository)


def test_a_missing_tag_says_what_git_says(kohya: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"git clone failed: .*v2"):
        clone("v2", kohya[1], tmp_path / "made", kohya[0])


def test_every_version_with_an_option_table_has_its_commits_and_its_locks() -> None:
    container = REPOSITORY / "container"
    versions = [path.stem.removeprefix("kohya_ss-") for path in (container / "options").glob("*.json")]
    assert len(versions) >= 2
    for version in versions:
        commits = expected_commits(version)
        assert len(commits["KOHYA_SS_COMMIT"]) == len(commits["TRAINER_COMMIT"]) == 40
        for kind in ("kohya_ss", "torch"):
            lock = (container / f"requirements/{kind}-{version}.txt").read_text()
            requirements = [line for line in lock.splitlines() if line[:1].isalnum()]
            assert requirements
            assert all("==" in line and line.endswith("\\") for line in requirements)


def test_an_unknown_version_names_the_known_ones() -> None:
    with pytest.raises(SourceError, match=r"v22\.6\.2, v25\.2\.2"):
        expected_commits("v1.2.3")
