"""A full-size SDXL checkpoint of random weights and both CLIP tokenizers, so that the real trainer runs without a hub.

The loss means nothing; the speed, the memory and every file format are real. About 45 s and 6.9 GB.

    python fabricated.py FOLDER SD_SCRIPTS BPE_VOCABULARY
    FOLDER/sdxl.safetensors, FOLDER/tokenizers/<both>/

BPE_VOCABULARY is open_clip/bpe_simple_vocab_16e6.txt.gz of the PyPI package open_clip_torch.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

# The trainer looks for these folders below tokenizer_cache_dir: the hub's names with "/" as "_".
TOKENIZERS = ("openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k")
CLIP_VOCABULARY = 49152
LOGIT_SCALE = 4.6
# What both text encoders of SDXL share (library/sdxl_model_util.py).
TEXT = {
    "vocab_size": CLIP_VOCABULARY + 256,
    "max_position_embeddings": 77,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}


def byte_letters() -> list[str]:
    """The 256 letters that stand for bytes in CLIP's byte-pair encoding, printable ones first."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def write_tokenizers(folder: Path, vocabulary_file: Path) -> None:
    """Both tokenizers have one vocabulary; the trainer itself sets the second one's padding."""
    lines = gzip.decompress(vocabulary_file.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : CLIP_VOCABULARY - 256 - 2 + 1]
    letters = byte_letters()
    words = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(merge.split()) for merge in merges),
    ]
    words += ["<|startoftext|>", "<|endoftext|>"]
    settings = {
        "model_max_length": 77,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "CLIPTokenizer",
        "do_lower_case": True,
    }
    for name in TOKENIZERS:
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
        (place / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
        (place / "tokenizer_config.json").write_text(json.dumps(settings))


def write_checkpoint(path: Path, sd_scripts: Path) -> None:
    """Built from the trainer's own classes and saved by its own function, in half precision."""
    sys.path.insert(0, str(sd_scripts))
    import torch
    from diffusers import AutoencoderKL
    from library import model_util, sdxl_model_util, sdxl_original_unet
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    first: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    second: dict[str, Any] = {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": _layers_of_second_encoder(sd_scripts),
    }
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        encoder = CLIPTextModel._from_config(
            CLIPTextConfig(
                num_attention_heads=12, hidden_act="quick_gelu", projection_dim=768, **first, **TEXT
            )
        )
        projecting = CLIPTextModelWithProjection(
            CLIPTextConfig(num_attention_heads=20, hidden_act="gelu", projection_dim=1280, **second, **TEXT)
        )
        unet = sdxl_original_unet.SdxlUNet2DConditionModel()
        vae = AutoencoderKL(**model_util.create_vae_diffusers_config())
    metadata = {"format": "pt"}
    sdxl_model_util.save_stable_diffusion_checkpoint(
        str(path),
        encoder,
        projecting,
        unet,
        0,
        0,
        None,
        vae,
        torch.tensor(LOGIT_SCALE),
        metadata,
        torch.float16,
    )


def _layers_of_second_encoder(sd_scripts: Path) -> int:
    """As the trainer's loader says, so that a shrunken copy of it can be used where there is no GPU."""
    source = (sd_scripts / "library" / "sdxl_model_util.py").read_text(encoding="utf-8")
    return int(source.split("num_hidden_layers=")[-1].split(",")[0])


def main(folder: Path, sd_scripts: Path, vocabulary_file: Path) -> None:
    """Writes the tokenizers and the checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizers(folder / "tokenizers", vocabulary_file)
    write_checkpoint(folder / "sdxl.safetensors", sd_scripts)


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:4]))
