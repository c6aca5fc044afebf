"""S3: an object that came in several parts is dated by the beginning of its upload, not by its end.

S3 User Guide, "Working with object metadata": "For multipart uploads, the object creation date is the date of
initiation of the multipart upload."
"""

import contextvars
from typing import Any

from ministack.services import s3

from local.embedded_aws.patching import replace

_begun: contextvars.ContextVar[str | None] = contextvars.ContextVar("beginning_of_the_upload", default=None)


def install() -> None:
    def complete(bucket: str, key: str, body: bytes, query: dict[str, Any], *rest: Any) -> Any:
        upload = s3._multipart_uploads.get(s3._qp(query, "uploadId"))
        token = _begun.set(upload["created"] if upload else None)
        try:
            return complete_as_it_is(bucket, key, body, query, *rest)
        finally:
            _begun.reset(token)

    def record(bucket: str, key: str, before: Any, stored: dict[str, Any], *rest: Any) -> Any:
        if begun := _begun.get():
            stored["last_modified"] = begun
        return record_as_it_is(bucket, key, before, stored, *rest)

    complete_as_it_is = replace(s3, "_complete_multipart_upload", complete)
    record_as_it_is = replace(s3, "_record_object_version", record)
