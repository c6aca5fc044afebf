"""Which VAE it is, by its content: a twentieth of a checkpoint, read in less than a second where the whole takes ten.

Two base models with the same VAE make the same latents, and a file that was exchanged under its name makes others.
"""

import hashlib
from pathlib import Path

from kohya_trainer.safetensors_header import read_header
from kohya_trainer.staging import sha256_of

# Of the VAE's tensors in a checkpoint (sd-scripts, library/model_util.py); a file of its own has them without.
PREFIX = "first_stage_model."


def vae_sha256(source: Path) -> str:
    """Of a checkpoint, of a VAE's own .safetensors, or of a model in diffusers' folders."""
    if source.is_dir():
        return _of_files(source / "vae" if (source / "vae").is_dir() else source)
    return _of_tensors(source) if source.suffix == ".safetensors" else sha256_of(source)


def _of_files(folder: Path) -> str:
    lines = (f"{sha256_of(path)}  {path.name}\n" for path in sorted(folder.iterdir()) if path.is_file())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _of_tensors(path: Path) -> str:
    """Names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        header, data = read_header(file)
        own = {name: entry for name, entry in header.items() if name.startswith(PREFIX)}
        tensors = own or {name: entry for name, entry in header.items() if name != "__metadata__"}
        for name, entry in sorted(tensors.items()):
            begin, end = entry["data_offsets"]
            digest.update(f"{name.removeprefix(PREFIX)} {entry['dtype']} {entry['shape']}\n".encode())
            file.seek(data + begin)
            digest.update(file.read(end - begin))
    return digest.hexdigest()
