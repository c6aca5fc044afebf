"""Clones a tag of kohya_ss with its submodule and refuses any other commits than the expected ones.

    clone_kohya.py VERSION FOLDER

A tag can be moved; versions/ holds the commits whose option tables this project validates against. FOLDER gets the work
tree without git's history, and its commits in KOHYA_SS_COMMIT and TRAINER_COMMIT.
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = "https://github.com/bmaltais/kohya_ss.git"
VERSIONS = Path(__file__).resolve().parent.parent / "versions"
SCRIPT = "sdxl_train_network.py"


class SourceError(Exception):
    """The trainer's source is not what was expected; the message says what to do."""


def expected_commits(version: str, versions: Path = VERSIONS) -> dict[str, str]:
    """KOHYA_SS_COMMIT, TRAINER_FOLDER and TRAINER_COMMIT of a version."""
    path = versions / f"{version}.env"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in versions.glob("*.env")))
        raise SourceError(f"{version} is not a known version of kohya_ss (known: {known}).")
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def clone(version: str, expected: Mapping[str, str], folder: Path, repository: str = REPOSITORY) -> None:
    """Raises SourceError when the tag or its submodule leads to another commit, or holds no SDXL trainer."""
    words = ["clone", "--quiet", "--depth", "1", "--branch", version]
    git(*words, "--recurse-submodules", "--shallow-submodules", repository, str(folder))
    trainer = folder / expected["TRAINER_FOLDER"]
    for name, place in (("KOHYA_SS_COMMIT", folder), ("TRAINER_COMMIT", trainer)):
        found = git("-C", str(place), "rev-parse", "HEAD").strip()
        if found != expected[name]:
            raise SourceError(
                f"the {name} of {version} is {found}, not {expected[name]}: the tag was moved. "
                f"Look at what changed before versions/{version}.env is given the new commit."
            )
    if not (trainer / SCRIPT).is_file():
        raise SourceError(f"{version} has no {SCRIPT} in {expected['TRAINER_FOLDER']}.")
    for history in [*folder.rglob(".git")]:  # a folder, or a submodule's file
        shutil.rmtree(history) if history.is_dir() else history.unlink()
    for name in ("KOHYA_SS_COMMIT", "TRAINER_COMMIT"):
        (folder / name).write_text(expected[name] + "\n", encoding="utf-8")


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True)
    if done.returncode:
        raise SourceError(f"git {words[0]} failed: {done.stderr.strip()}")
    return done.stdout


def main(version: str, folder: str) -> int:
    try:
        clone(version, expected_commits(version), Path(folder))
    except SourceError as error:
        print(f"clone_kohya: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
