"""`./dev fuzz`: mangled manifests, TOMLs and images for the code that judges them.

No input may raise, be accepted with an image that the trainer cannot load, make a finding that cannot be
written, or take the memory of a worker. Every input is made from a seed and its number: what fails is printed
with the command that makes it again.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import random
import sys
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from fine_tuning import configuration, image_check, kohya_toml, manifest, options
from fine_tuning.findings import Finding, has_errors
from fine_tuning.manifest import Manifest
from tests.fuzz.mutation import changed_document, changed_options, mutated

REPOSITORY = Path(__file__).parents[2]
INPUTS = 120_000
LARGEST_MEMORY = 512 * 1024  # KiB, what a worker may have
LONGEST_TEXT = 2000  # characters of a message or remedy: it goes into a mail
SHOWN = 200
_HEAD = 96  # bytes of an image that say what follows


@cache
def manifests() -> Sequence[bytes]:
    """Manifests to begin with: the examples and those of the events."""
    paths = [*(REPOSITORY / "events/manifests").glob("*.json"), *REPOSITORY.glob("examples/*/manifest.json")]
    return [path.read_bytes() for path in sorted(paths)]


@cache
def tomls() -> Sequence[bytes]:
    """The presets, and what a graphical interface writes."""
    paths = sorted((REPOSITORY / "functions/fine_tuning/presets").glob("*.toml"))
    written = (
        b'[a]\nmax_token_length = 75\nsdxl = true\nnetwork_args = ["conv_dim=4"]\nlr_warmup_steps = 0.1\n'
    )
    return [*(path.read_bytes() for path in paths), written]


@cache
def images() -> Sequence[bytes]:
    """Small images of every kind that is opened, and one that is not."""
    grey = Image.linear_gradient("L").resize((24, 16))
    colour, clear = Image.merge("RGB", (grey,) * 3), Image.merge("RGBA", (grey,) * 4)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [
        *((colour, "JPEG", {}), (colour, "JPEG", {"progressive": True, "exif": exif}), (grey, "JPEG", {})),
        *(
            (Image.merge("CMYK", (grey,) * 4), "JPEG", {}),
            (colour, "MPO", {"save_all": True, "append_images": [colour]}),
        ),
        *((colour, "PNG", {}), (clear, "PNG", {}), (grey.convert("P"), "PNG", {"transparency": 0})),
        *((grey.convert("I;16"), "PNG", {}), (colour, "PNG", {"save_all": True, "append_images": [colour]})),
        *(
            (colour, "WEBP", {}),
            (clear, "WEBP", {"lossless": True, "save_all": True, "append_images": [clear]}),
        ),
        *((colour, "BMP", {}), (grey.convert("P"), "BMP", {}), (grey, "GIF", {})),
    ]
    made = []
    for image, format_name, how in kinds:
        content = io.BytesIO()
        image.save(content, format_name, **how)
        made.append(content.getvalue())
    return made


def judge_manifest(content: bytes) -> None:
    accepted, findings = manifest.judge(content)
    _writable(findings)
    assert (accepted is None) == has_errors(findings)
    if accepted is not None:
        assert json.loads(content)["version"] == 1
        for declared in accepted.files:
            assert not declared.path.startswith("/")
            assert ".." not in declared.path.split("/")
        _writable(configuration.resolve(accepted, None, "v25.2.2").findings)


def judge_toml(content: bytes) -> None:
    resolved = configuration.resolve(Manifest(document={"version": 1}), content, "v25.2.2")
    _writable(resolved.findings)
    if not has_errors(resolved.findings):
        written = tomllib.loads(kohya_toml.write(resolved.values).decode())
        assert written == resolved.values
        assert not any(name.startswith("huggingface_") or name == "wandb_api_key" for name in written)


def judge_image(content: bytes) -> None:
    size, findings = image_check.check("10_x/a.jpg", content)
    _writable(findings)
    assert (size is None) == has_errors(findings)
    if size is not None:
        assert trained_on(content) == size


def trained_on(content: bytes) -> tuple[int, int]:
    """The size of an image as the trainer loads it (train_util.load_image); raises where it would stop."""
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB").size


def make_manifest(chance: random.Random) -> bytes:
    seed = chance.choice(manifests())
    keys = [*manifest_keys(), *chance.sample(option_names(), 5)]
    return mutated(seed, chance) if chance.random() < 0.4 else changed_document(seed, chance, keys)


def make_toml(chance: random.Random) -> bytes:
    return (
        mutated(chance.choice(tomls()), chance)
        if chance.random() < 0.4
        else changed_options(chance, option_names())
    )


def make_image(chance: random.Random) -> bytes:
    return mutated(chance.choice(images()), chance, _HEAD)


@cache
def option_names() -> Sequence[str]:
    return sorted(options.table("v25.2.2"))


@cache
def manifest_keys() -> Sequence[str]:
    schema = json.loads((REPOSITORY / "events/manifest.schema.json").read_bytes())
    return sorted(schema["properties"])


KINDS: dict[str, tuple[Callable[[random.Random], bytes], Callable[[bytes], None]]] = {
    "manifest": (make_manifest, judge_manifest),
    "toml": (make_toml, judge_toml),
    "image": (make_image, judge_image),
}


def _writable(findings: Sequence[Finding]) -> None:
    for finding in findings:
        json.dumps(finding.as_document(), ensure_ascii=False).encode()
        assert len(finding.message) <= LONGEST_TEXT, f"a message of {len(finding.message)} characters"
        assert len(finding.remedy) <= LONGEST_TEXT, f"a remedy of {len(finding.remedy)} characters"


def made(kind: str, seed: int, number: int) -> bytes:
    """The input of this number."""
    return KINDS[kind][0](random.Random(f"{seed}/{kind}/{number}"))


def run(kinds: Sequence[str], seed: int, inputs: int, seconds: float, first: int = 0) -> int:
    """The number of inputs that went wrong; each is shown."""
    started, failures, count = time.monotonic(), 0, 0
    for number in itertools.count(first):
        for kind in kinds:
            content = made(kind, seed, number)
            try:
                KINDS[kind][1](content)
            except Exception:
                failures += 1
                traceback.print_exc()
                print(f"{content[:SHOWN]!r}{'…' if len(content) > SHOWN else ''}", file=sys.stderr)
                print(
                    f"again: ./dev fuzz --kind {kind} --seed {seed} --first {number} --inputs 1",
                    file=sys.stderr,
                )
            count += 1
        if count >= inputs or time.monotonic() - started >= seconds or failures > 10:
            break
    took, peak = time.monotonic() - started, _peak_memory()
    print(
        f"{count} inputs ({', '.join(kinds)}; seed {seed}) in {took:.0f} s, peak {peak // 1024} MiB, {failures} wrong"
    )
    return failures + (peak > LARGEST_MEMORY)


def _peak_memory() -> int:
    """KiB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS, help=f"how many at most ({INPUTS})")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="how long at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=sorted(KINDS), action="append", help="only this kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    chosen = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
    return (
        1 if run(chosen.kind or list(KINDS), chosen.seed, chosen.inputs, chosen.seconds, chosen.first) else 0
    )


if __name__ == "__main__":
    sys.exit(main())
