"""Which base model the trainer loads: a .safetensors of the model channel, or the hub's at a pinned
revision.
"""

import subprocess
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kohya_trainer.environment import Environment
from kohya_trainer.errors import BaseModelError, CorruptBaseModelError
from kohya_trainer.failure import classify
from kohya_trainer.inputs import BaseModel
from kohya_trainer.safetensors_header import read_header
from kohya_trainer.staging import sha256_of

# Run in a process of its own, because this package imports nothing but the standard library, numpy and
# safetensors.
_FETCH = """
import re, sys, huggingface_hub as hub
model, revision, file, folder = sys.argv[1:]
if not re.fullmatch("[0-9a-f]{40}", revision):
    revision = hub.model_info(model, revision=revision or None).sha
print(revision)
if file:
    print(hub.hf_hub_download(model, file, revision=revision, local_dir=folder))
else:
    wanted = ["*.json", "*.txt", "*.safetensors"]
    print(hub.snapshot_download(model, revision=revision, allow_patterns=wanted, local_dir=folder))
"""
# Beside the base model in its folder, this is the VAE that is trained with in place of the model's own.
VAE = "vae.safetensors"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True)
class LoadedBaseModel:
    """`name`: pretrained_model_name_or_path; `record` is for provenance.json, `variables` for Kohya.

    `vae` is a file that replaces the model's own. The digests, by their place in the record, are computed while
    the trainer starts, which takes longer.
    """

    name: str | None
    record: dict[str, Any]
    variables: dict[str, str]
    digests: Mapping[str, Future[str]] = field(default_factory=dict)
    vae: str | None = None

    def told(self) -> dict[str, Any]:
        """`record` with the digests, waited for; raises OSError when a file could not be read."""
        return {**self.record, **{name: digest.result() for name, digest in self.digests.items()}}


def load_base_model(
    wanted: BaseModel | None, configured: str | None, environment: Environment
) -> LoadedBaseModel:
    """Raises BaseModelError when the model channel lacks the file; TrainerFailedError when the hub
    refuses it.
    """
    if wanted is None:
        return LoadedBaseModel(configured, {"kind": "configured", "id": configured}, {})
    record = {"kind": wanted.kind, "id": wanted.id, "revision": wanted.revision, "file": wanted.file}
    if wanted.kind == "channel":
        path, vae = _in_channel(environment.folders.base_model, wanted.file)
        told, digests = {**record, "file": path.name}, {"sha256": _in_background(path)}
        if vae:
            told["vae"], digests["vae_sha256"] = vae.name, _in_background(vae)
        return LoadedBaseModel(str(path), told, dict(OFFLINE), digests, str(vae) if vae else None)
    if environment.rehearsal or not (wanted.revision or wanted.file):
        return LoadedBaseModel(wanted.id, record, {})
    fetched, commit = _fetched(wanted, environment)
    digests = {"sha256": _in_background(fetched)} if fetched.is_file() else {}
    return LoadedBaseModel(str(fetched), {**record, "revision": commit}, {}, digests)


def _in_channel(folder: Path, file: str | None) -> tuple[Path, Path | None]:
    """The base model and, if there is one, the VAE beside it."""
    remedy = "Put one .safetensors of SDXL under models/ in the bucket and name it as base_model."
    vae = folder / VAE
    found = [path for path in sorted(folder.glob("*.safetensors")) if path != vae]
    candidates = [folder / Path(file).name] if file else found
    if len(candidates) != 1 or not candidates[0].is_file():
        present = ", ".join(sorted(path.name for path in folder.glob("*"))[:10]) or "nothing"
        wanted = file or "exactly one .safetensors"
        raise BaseModelError(f"The model channel does not hold {wanted}; it holds {present}.", remedy)
    for path in (candidates[0], vae):
        _require_safetensors(path, remedy)
    return candidates[0], vae if vae.is_file() else None


def _require_safetensors(path: Path, remedy: str) -> None:
    """By its name and its header: other formats can run code, and a cut upload is told before a GPU is busy."""
    if path.suffix != ".safetensors":
        raise BaseModelError(f"{path.name} is not a .safetensors; other formats can run code.", remedy)
    if not path.is_file():
        return
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            header, data = read_header(file)
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        end = data + max((int(entry["data_offsets"][1]) for entry in entries), default=0)
    except (ValueError, KeyError, TypeError, IndexError):
        raise CorruptBaseModelError(f"{path.name} is damaged: it has no header of a .safetensors.") from None
    if end != size:
        raise CorruptBaseModelError(
            f"{path.name} is damaged: it has {size} bytes, its header tells of {end}."
        )


def _in_background(path: Path) -> Future[str]:
    pool = ThreadPoolExecutor(max_workers=1)
    digest = pool.submit(sha256_of, path)
    pool.shutdown(wait=False)
    return digest


def _fetched(wanted: BaseModel, environment: Environment) -> tuple[Path, str]:
    """Into a plain folder: Kohya follows symbolic links in a way that breaks the hub's own cache. With it the commit
    that a branch or tag, which may move, stood for.
    """
    folder = environment.folders.work / "base-model"
    arguments = [str(wanted.id), wanted.revision or "", wanted.file or "", str(folder)]
    command = [environment.machine.python, "-c", _FETCH, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise classify(done.returncode, done.stderr.splitlines())
    commit, path = done.stdout.splitlines()[-2:]
    return Path(path), commit
