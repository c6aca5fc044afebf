"""Counts the captions of clip_tokens.json anew with the tokenizer that the trainer uses.

In an environment of its own: pip install transformers==4.44.0 ftfy==6.1.1 regex; python make_clip_tokens.py
"""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

from transformers.models.clip.tokenization_clip import CLIPTokenizer, bytes_to_unicode

ANSWERS = Path(__file__).with_name("clip_tokens.json")
VOCABULARY = Path(__file__).parents[4] / "functions/fine_tuning/clip/bpe_simple_vocab_16e6.txt.gz"


def tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer over the vocabulary that the functions carry."""
    merges = gzip.decompress(VOCABULARY.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    words = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(merge.split()) for merge in merges),
    ]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    made = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    assert made.fix_text is not None, "install ftfy: the trainer has it"
    return made


if __name__ == "__main__":
    document = json.loads(ANSWERS.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        clip = tokenizer(Path(folder))
        for caption in document["captions"]:
            caption["tokens"] = len(clip(caption["text"])["input_ids"]) - 2
    ANSWERS.write_text(json.dumps(document, indent=0) + "\n")
