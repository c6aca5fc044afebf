"""S3: the dataset's objects and a run's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fine_tuning.aws.sdk import client
from fine_tuning.aws.translation import code_of, translated
from fine_tuning.errors import ObjectMissingError
from fine_tuning.inventory import InventoryFile, ListedObject, UnfinishedUpload

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})
_UNVERSIONED = "null"  # what S3 calls the version of an object in a bucket without versioning
_CHUNK = 4 * 1024 * 1024  # bytes


@dataclass(frozen=True)
class StoredObject:
    """An object below a prefix. Size in bytes; `modified`: when it was written."""

    key: str
    size: int
    modified: datetime


class Objects:
    """The objects of one bucket."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket

    @property
    def _s3(self) -> S3Client:
        s3: S3Client = client("s3")
        return s3

    def size(self, key: str, version: str | None = None) -> int:
        with self._asked(f"look at {self._uri(key)}", key):
            return self._s3.head_object(Bucket=self.bucket, Key=key, **_version(version))["ContentLength"]

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except ObjectMissingError:
            return False
        return True

    def read(self, key: str, version: str | None = None) -> bytes:
        with self._asked(f"read {self._uri(key)}", key):
            return self._s3.get_object(Bucket=self.bucket, Key=key, **_version(version))["Body"].read()

    def read_range(self, key: str, first: int, count: int) -> bytes:
        """`count` bytes from offset `first`; fewer where the object ends."""
        with self._asked(f"read {self._uri(key)}", key):
            bytes_range = f"bytes={first}-{first + count - 1}"
            return self._s3.get_object(Bucket=self.bucket, Key=key, Range=bytes_range)["Body"].read()

    def sha256(self, key: str) -> str:
        """64 hexadecimal digits of the whole object, which is never held in memory."""
        digest = hashlib.sha256()
        with self._asked(f"read {self._uri(key)}", key):
            for chunk in self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].iter_chunks(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def read_document(self, key: str) -> Any:
        return json.loads(self.read(key))

    def write(self, key: str, content: bytes, content_type: str = "application/octet-stream") -> None:
        with self._asked(f"write {self._uri(key)}", key):
            self._s3.put_object(Bucket=self.bucket, Key=key, Body=content, ContentType=content_type)

    def copy(self, source: str, target: str) -> None:
        """Within S3, of at most 5 GB."""
        with self._asked(f"copy {self._uri(source)}", source):
            origin: Any = {"Bucket": self.bucket, "Key": source}
            self._s3.copy_object(Bucket=self.bucket, Key=target, CopySource=origin)

    def write_document(self, key: str, document: Any) -> None:
        text = json.dumps(document, indent=1, ensure_ascii=False)
        self.write(key, text.encode(), "application/json")

    def list_below(self, prefix: str) -> list[StoredObject]:
        with self._asked(f"list {self._uri(prefix)}", prefix):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            return [
                StoredObject(o["Key"], o["Size"], o["LastModified"])
                for page in pages
                for o in page.get("Contents", ())
            ]

    def list_dataset(self, prefix: str) -> list[ListedObject]:
        """The current version of every object below the prefix, with its version id.

        One listing of versions tells what GET would need a request an object for; old versions are passed
        over.
        """
        with self._asked(f"list {self._uri(prefix)}", prefix):
            pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=prefix)
            return [
                ListedObject(
                    InventoryFile(
                        path=version["Key"][len(prefix) :],
                        size=version["Size"],
                        etag=version["ETag"].strip('"'),
                        version_id=version.get("VersionId"),
                    ),
                    version["LastModified"],
                )
                for page in pages
                for version in page.get("Versions", ())
                if version["IsLatest"]
            ]

    def unfinished_uploads(self, prefix: str) -> list[UnfinishedUpload]:
        """Uploads in parts below the prefix that are going on or were given up.

        The bucket's life cycle clears away those of more than three days, so that there are never many.
        """
        with self._asked(f"list the uploads of {self._uri(prefix)}", prefix):
            pages = self._s3.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=prefix
            )
            return [
                UnfinishedUpload(begun["Key"][len(prefix) :], begun["Initiated"])
                for page in pages
                for begun in page.get("Uploads", ())
            ]

    def _uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    @contextmanager
    def _asked(self, action: str, key: str) -> Iterator[None]:
        """`translated`, with a missing object told apart."""
        with translated(action):
            try:
                yield
            except self._s3.exceptions.ClientError as cause:
                if code_of(cause) not in _MISSING:
                    raise
                remedy = "Restore it, if it was deleted meanwhile."
                raise ObjectMissingError(f"{self._uri(key)} is not there.", remedy) from cause


def _version(version: str | None) -> dict[str, Any]:
    return {"VersionId": version} if version and version != _UNVERSIONED else {}
