"""Locks what the training image installs: `./dev lock image`.

container/requirements/<name>.in becomes <name>.txt, every package with its hashes, for the image's Python and platform
alone. What a kohya_ss needs becomes two files, because torch and NVIDIA's libraries are nearly all of the image and
change least: torch-<version>.txt is a layer of its own.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[1] / "container" / "requirements"
KOHYA = "kohya_ss-"
PLATFORM = ("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28")
FORM = ("--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-header", "--no-annotate")
TORCH = re.compile(r"(torch|torchvision|triton|xformers|nvidia-[a-z0-9-]+)==")


def split(lock: str) -> tuple[str, str]:
    """Torch with what only it needs, and the rest. A requirement begins in the first column, its hashes do not."""
    requirements = re.findall(r"^\S.*\n(?:[ \t].*\n)*", lock, re.MULTILINE)
    torch = [text for text in requirements if TORCH.match(text)]
    return "".join(torch), "".join(text for text in requirements if text not in torch)


def resolve(uv: str, source: Path, options: Sequence[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "lock.txt"
        known = source.with_suffix(".txt"), source.with_name(source.stem.replace(KOHYA, "torch-") + ".txt")
        # What is locked already stays, unless an upgrade is asked for.
        target.write_text("".join(path.read_text() for path in dict.fromkeys(known) if path.is_file()))
        words = [uv, "pip", "compile", "--quiet", "--no-config", *PLATFORM, *FORM, *options]
        subprocess.run([*words, "--output-file", str(target), str(source)], check=True)
        return target.read_text(encoding="utf-8")


def main(uv: str, *options: str) -> int:
    for source in sorted(REQUIREMENTS.glob("*.in")):
        lock = resolve(uv, source, options)
        if source.stem.startswith(KOHYA):
            torch, lock = split(lock)
            source.with_name(f"{source.stem.replace(KOHYA, 'torch-')}.txt").write_text(
                torch, encoding="utf-8"
            )
        source.with_suffix(".txt").write_text(lock, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
