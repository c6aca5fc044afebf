"""Which base model the trainer loads: a .safetensors of the model channel, or the hub's at a pinned
revision.
"""

import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kohya_trainer.environment import Environment
from kohya_trainer.errors import BaseModelError
from kohya_trainer.failure import classify
from kohya_trainer.inputs import BaseModel
from kohya_trainer.staging import sha256_of

# Run in a process of its own, because this package imports nothing but the standard library, numpy and
# safetensors.
_FETCH = """
import sys, huggingface_hub as hub
model, revision, file, folder = sys.argv[1:]
revision = revision or None
if file:
    print(hub.hf_hub_download(model, file, revision=revision, local_dir=folder))
else:
    wanted = ["*.json", "*.txt", "*.safetensors"]
    print(hub.snapshot_download(model, revision=revision, allow_patterns=wanted, local_dir=folder))
"""
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True)
class LoadedBaseModel:
    """`name`: pretrained_model_name_or_path; `record` is for provenance.json, `variables` for Kohya.

    `digest` is the sha256 of a channel's file. It is computed while the trainer starts, which takes longer.
    """

    name: str | None
    record: dict[str, Any]
    variables: dict[str, str]
    digest: Future[str] | None = None

    def told(self) -> dict[str, Any]:
        """`record` with the digest, waited for; raises OSError when the file could not be read."""
        return {**self.record, "sha256": self.digest.result()} if self.digest else self.record


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
        path = _in_channel(environment.folders.base_model, wanted.file)
        with_file = {**record, "file": path.name}
        return LoadedBaseModel(str(path), with_file, dict(OFFLINE), _in_background(path))
    if environment.rehearsal or not (wanted.revision or wanted.file):
        return LoadedBaseModel(wanted.id, record, {})
    return LoadedBaseModel(_fetched(wanted, environment), record, {})


def _in_channel(folder: Path, file: str | None) -> Path:
    remedy = "Put one .safetensors of SDXL under models/ in the bucket and name it as base_model."
    candidates = [folder / Path(file).name] if file else sorted(folder.glob("*.safetensors"))
    if len(candidates) != 1 or not candidates[0].is_file():
        raise BaseModelError(f"The model channel does not hold {file or 'exactly one .safetensors'}.", remedy)
    if candidates[0].suffix != ".safetensors":
        raise BaseModelError(
            f"{candidates[0].name} is not a .safetensors; other formats can run code.", remedy
        )
    return candidates[0]


def _in_background(path: Path) -> Future[str]:
    pool = ThreadPoolExecutor(max_workers=1)
    digest = pool.submit(sha256_of, path)
    pool.shutdown(wait=False)
    return digest


def _fetched(wanted: BaseModel, environment: Environment) -> str:
    """Into a plain folder: Kohya follows symbolic links in a way that breaks the hub's own cache."""
    folder = environment.folders.work / "base-model"
    arguments = [str(wanted.id), wanted.revision or "", wanted.file or "", str(folder)]
    command = [environment.machine.python, "-c", _FETCH, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise classify(done.returncode, done.stderr.splitlines())
    return done.stdout.splitlines()[-1]
