"""The model that a run fine-tunes.

A file in the project's bucket, or one of the model hub at a fixed revision.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fine_tuning.errors import FineTuningError
from fine_tuning.findings import Finding, error, note, warning
from fine_tuning.run import MANIFEST_NAME

OPTION = "pretrained_model_name_or_path"

# Stability AI's SDXL base 1.0 at the revision that the tokenizers and presets were chosen for.
DEFAULT_ID = "stabilityai/stable-diffusion-xl-base-1.0"
DEFAULT_REVISION = "462165984030d82259a11f4367a4eed129e94a7b"
DEFAULT_FILE = "sd_xl_base_1.0.safetensors"
_HUB_ID = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
)  # as the manifest's schema has it
_FILE_ENDINGS = (".safetensors", ".ckpt", ".pt", ".bin")
# Those that the graphical interface offers for its other trainers (class_source_model.py). SDXL's stops at each: one of
# its two text encoders is missing (sdxl_train_util.py, _load_target_model).
_NOT_SDXL = frozenset(
    {
        "CompVis/stable-diffusion-v1-4",
        "runwayml/stable-diffusion-v1-5",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "stabilityai/stable-diffusion-2",
        "stabilityai/stable-diffusion-2-base",
        "stabilityai/stable-diffusion-2-1",
        "stabilityai/stable-diffusion-2-1-base",
        "stabilityai/stable-diffusion-xl-refiner-1.0",
    }
)


class BaseModelElsewhereError(FineTuningError):
    """The manifest's base model lies in a bucket that the training job may not read."""


@dataclass(frozen=True)
class BaseModel:
    """Kind `hub`: id, revision and, if known, the file; kind `channel`: an S3 object's folder (id) and file."""

    kind: Literal["hub", "channel"]
    id: str
    revision: str | None
    file: str | None

    def as_document(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def uri(self) -> str:
        """S3 address of a `channel` model."""
        return f"{self.id}{self.file}"

    @property
    def name(self) -> str:
        """As the manifest's `base_model` would name it."""
        return self.uri if self.kind == "channel" else f"{self.id}@{self.revision}"


@dataclass(frozen=True)
class NamedModel:
    """What pretrained_model_name_or_path is in the user's options, and in which file."""

    value: str
    where: str

    @property
    def hub_id(self) -> str | None:
        """`organisation/model`; None for a path of another machine."""
        is_id = _HUB_ID.fullmatch(self.value) and not self.value.lower().endswith(_FILE_ENDINGS)
        return self.value if is_id else None


def without_revision(value: str) -> bool:
    """Whether a model of the hub is named, but not which of its revisions."""
    return NamedModel(value, MANIFEST_NAME).hub_id is not None


def base_model(manifest_value: str | None, named: NamedModel | None, bucket: str) -> BaseModel:
    """The manifest's base model, else the hub's that the user's options name, else SDXL base 1.0.

    Args:
        manifest_value: `s3://bucket/folder/file.safetensors` or `organisation/model@revision`.
        bucket: the only bucket that the training role may read.
    """
    if manifest_value is None:
        hub_id = named.hub_id if named else None
        if hub_id in (None, DEFAULT_ID):
            return BaseModel("hub", DEFAULT_ID, DEFAULT_REVISION, DEFAULT_FILE)
        return BaseModel("hub", str(hub_id), "main", None)
    if not manifest_value.startswith("s3://"):
        model, _, revision = manifest_value.partition("@")
        return BaseModel("hub", model, revision, DEFAULT_FILE if model == DEFAULT_ID else None)
    folder, _, file = manifest_value.rpartition("/")
    if not folder.startswith(f"s3://{bucket}/"):
        raise BaseModelElsewhereError(
            f"The base model {manifest_value} does not lie in a folder of the bucket {bucket}.",
            f"Copy it to s3://{bucket}/models/<folder>/ and name that address.",
        )
    return BaseModel("channel", f"{folder}/", None, file)


def judge(model: BaseModel, manifest_value: str | None, named: NamedModel | None) -> list[Finding]:
    """Where another model is trained on than a file names, or one that nobody may have meant."""
    if model.id in _NOT_SDXL:
        where = MANIFEST_NAME if manifest_value or named is None else named.where
        message = f"{model.id} is no base model of SDXL; the trainer would stop when it has loaded it."
        remedy = (
            f"Name one of SDXL as `base_model` in the manifest, for example {DEFAULT_ID}@{DEFAULT_REVISION}."
        )
        return [error("base-model-not-sdxl", where, message, remedy)]
    if named is None or (manifest_value is None and named.hub_id == DEFAULT_ID):
        return []
    shown = named.value[:200]
    if manifest_value is not None:
        message = f"The option {OPTION} is not used: the manifest's `base_model` decides."
        return [note("option-overridden", named.where, message)]
    if named.hub_id is not None:
        message = f"{OPTION} is {shown}, so that model of the hub is trained on, as its branch main is then."
        remedy = (
            f'Set "base_model": "{shown}@main", or a commit of it, in the manifest; if it is a folder of another '
            "machine, upload its .safetensors below models/ of the bucket and name its address instead."
        )
        return [warning("base-model-unpinned", named.where, message, remedy)]
    file = re.split(r"[/\\]", shown)[-1]
    message = f"{OPTION} is {shown}, which is not at hand here; {model.name} is trained on instead."
    if file == DEFAULT_FILE:
        return [note("option-overridden", named.where, message)]
    remedy = (
        "Upload it as .safetensors below models/ of the bucket and name its s3:// address as `base_model` in the "
        "manifest; or remove the option."
    )
    return [warning("base-model-replaced", named.where, message, remedy)]
