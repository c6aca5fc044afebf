"""The model that a run fine-tunes.

A file in the project's bucket, or one of the model hub at a fixed revision.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from fine_tuning.errors import FineTuningError

# Stability AI's SDXL base 1.0 at the revision that the tokenizers and presets were chosen for.
DEFAULT_ID = "stabilityai/stable-diffusion-xl-base-1.0"
DEFAULT_REVISION = "462165984030d82259a11f4367a4eed129e94a7b"
DEFAULT_FILE = "sd_xl_base_1.0.safetensors"


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


def base_model(manifest_value: str | None, hub_model: str | None, bucket: str) -> BaseModel:
    """The manifest's base model, else the hub id of the user's TOML, else SDXL base 1.0.

    Args:
        manifest_value: `s3://bucket/folder/file.safetensors` or `organisation/model@revision`.
        hub_model: `organisation/model`, without revision.
        bucket: the only bucket that the training role may read.
    """
    if manifest_value is None:
        if hub_model in (None, DEFAULT_ID):
            return BaseModel("hub", DEFAULT_ID, DEFAULT_REVISION, DEFAULT_FILE)
        return BaseModel("hub", str(hub_model), "main", None)
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
