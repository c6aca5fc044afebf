"""S3 on behalf of a training job: channels in, checkpoints both ways, model and output out."""

import io
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CHUNK_BYTES = 1024 * 1024


class EmptyPrefixError(Exception):
    """Nothing lies under the S3 prefix of a channel."""


class DownloadError(Exception):
    """An object that SageMaker does not download; the message is its own."""


def split_address(address: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`."""
    parts = urlsplit(address)
    return parts.netloc, parts.path.removeprefix("/")


def objects(s3: Any, address: str) -> Iterator[str]:
    """Keys under a prefix. A prefix without a trailing slash also matches its longer namesakes, as in S3."""
    bucket, prefix = split_address(address)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from (item["Key"] for item in page.get("Contents", []))


def download(s3: Any, address: str, folder: Path) -> int:
    """Copy what lies under `address` into `folder`, paths relative to the prefix. The number of objects.

    Raises DownloadError at a key that SageMaker refuses.
    """
    bucket, prefix = split_address(address)
    count = 0
    for key in objects(s3, address):
        if "//" in f"/{key}":
            raise DownloadError(
                f"Data download failed:Failed to download data. S3 key: s3://{bucket}/{key} has an illegal char "
                "sub-sequence '//' in it"
            )
        relative = key.removeprefix(prefix) or key.rpartition("/")[2]
        path = (folder / relative).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise ValueError(f"s3://{bucket}/{key} would be written outside of the channel")
        count += 1
        if key.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            shutil.copyfileobj(s3.get_object(Bucket=bucket, Key=key)["Body"], file, CHUNK_BYTES)
    return count


def download_channel(s3: Any, address: str, folder: Path) -> None:
    """One channel in File mode; an empty prefix is an error."""
    folder.mkdir(parents=True, exist_ok=True)
    if download(s3, address, folder) == 0:
        raise EmptyPrefixError(address)


def has_objects(s3: Any, address: str) -> bool:
    return next(objects(s3, address), None) is not None


class CheckpointFolder:
    """Keeps an S3 prefix equal to a folder while the folder is written.

    A file is uploaded again when its size or time has changed; nothing is ever deleted in S3.
    """

    def __init__(self, s3: Any, address: str, folder: Path) -> None:
        self._s3, self._address, self._folder = s3, address.rstrip("/") + "/", folder
        self._uploaded: dict[str, tuple[int, int]] = {}

    def restore(self) -> None:
        """Copy the prefix into the folder; an empty prefix is a job that starts from scratch."""
        self._folder.mkdir(parents=True, exist_ok=True)
        download(self._s3, self._address, self._folder)
        self._uploaded = dict(self._files())

    def synchronise(self) -> None:
        bucket, prefix = split_address(self._address)
        for name, state in self._files():
            if self._uploaded.get(name) == state:
                continue
            try:
                body = (self._folder / name).read_bytes()
            except FileNotFoundError:  # the trainer removes its older states
                continue
            self._s3.put_object(Bucket=bucket, Key=prefix + name, Body=body)
            self._uploaded[name] = state

    def _files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for path in files_of(self._folder):
            try:
                state = path.stat()
            except FileNotFoundError:
                continue
            yield path.relative_to(self._folder).as_posix(), (state.st_size, state.st_mtime_ns)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []


def model_address(output: Mapping[str, Any], job_name: str) -> str:
    """ModelArtifacts.S3ModelArtifacts: an archive, or with CompressionType NONE the folder of plain files."""
    return output_address(output, job_name) + ("model/" if is_plain(output) else "model.tar.gz")


def output_address(output: Mapping[str, Any], job_name: str) -> str:
    return f"{output['S3OutputPath'].rstrip('/')}/{job_name}/output/"


def is_plain(output: Mapping[str, Any]) -> bool:
    return bool(output.get("CompressionType") == "NONE")


def upload_folder(s3: Any, folder: Path, name: str, output: Mapping[str, Any], job_name: str) -> bool:
    """Upload `model` or `output` (`name`) to its place below the output path. False when the folder is empty."""
    files = files_of(folder)
    if not files:
        return False
    bucket, prefix = split_address(output_address(output, job_name))
    if is_plain(output):
        for path in files:
            with path.open("rb") as file:
                key = f"{prefix}{name}/{path.relative_to(folder).as_posix()}"
                s3.put_object(Bucket=bucket, Key=key, Body=file)
        return True
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for path in files:
            tar.add(path, path.relative_to(folder).as_posix())
    s3.put_object(Bucket=bucket, Key=f"{prefix}{name}.tar.gz", Body=archive.getvalue())
    return True
