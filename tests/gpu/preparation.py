"""What every GPU program is given, and begins with: its arguments, a base model, and what machine this is."""

import argparse
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from roots import Bench

PACKAGES = ("torch", "transformers", "diffusers", "accelerate", "safetensors", "numpy")
OPTIMIZERS = ("bitsandbytes", "dadaptation", "lion-pytorch", "prodigyopt", "schedulefree")


def parser(description: str | None, work: str, only: str) -> argparse.ArgumentParser:
    """`description` is the program's docstring, `work` its own folder, `only` what its --only means."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--sd-scripts", type=Path, required=True)
    made.add_argument("--vocabulary", type=Path, required=True)
    made.add_argument("--work", type=Path, default=Path(work))
    made.add_argument("--out", type=Path, default=Path("gpu-results"))
    made.add_argument("--fabricated", type=Path, help="a base model that an earlier call left in its --work")
    made.add_argument("--only", default="", help=only)
    return made


def bench_of(given: argparse.Namespace) -> Bench:
    """In an empty --work. Fabricates the base model in a process of its own, which gives the GPU's memory back; or
    takes the one that an earlier call left.
    """
    work, sd_scripts, fabricated = given.work.absolute(), given.sd_scripts.absolute(), given.fabricated
    shutil.rmtree(work, ignore_errors=True)
    home = work / "kohya"
    home.mkdir(parents=True)
    (home / "sd-scripts").symlink_to(sd_scripts)
    script = Path(__file__).parent / "fabricated.py"
    with compile_as_the_image(work / "bytecode", sd_scripts):
        if fabricated is None:
            fabricated = work / "fabricated"
            words = [sys.executable, script, fabricated, sd_scripts, given.vocabulary.absolute()]
            subprocess.run(words, check=True)
    return Bench(work, home, fabricated / "sdxl.safetensors", fabricated / "tokenizers")


def compile_as_the_image(folder: Path, sd_scripts: Path) -> "subprocess.Popen[bytes]":
    """Start-up is timed: the image holds the bytecode of everything, and some installers leave none. The process ends
    when all is compiled.
    """
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    packages = [path for path in sys.path if path.endswith("-packages")]
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    command = [sys.executable, "-W", "ignore", "-m", "compileall", "-q", "-j", "0"]
    # Packages hold templates that are no Python.
    return subprocess.Popen([*command, *packages, *given, sd_scripts], stdout=subprocess.DEVNULL)


def machine() -> dict[str, str]:
    """GPU, driver and the versions of what was used."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    found = {"gpu": "none", "python": sys.version.split()[0], "cpus": str(os.cpu_count())}
    if shutil.which(query[0]):
        found["gpu"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    for name in (*PACKAGES, *OPTIMIZERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found
