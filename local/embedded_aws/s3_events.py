"""S3: the event of an object names its version, as AWS's does ("version-id", only in versioned buckets)."""

import contextvars
import json
from typing import Any

from ministack.services import eventbridge, s3

from local.embedded_aws.patching import replace

_version: contextvars.ContextVar[str | None] = contextvars.ContextVar("version_of_the_object", default=None)


def install() -> None:
    def fire(*arguments: Any, version_id: str | None = None, **more: Any) -> None:
        token = _version.set(version_id)
        try:
            fire_without_version(*arguments, version_id=version_id, **more)
        finally:
            _version.reset(token)

    def dispatch(event: dict[str, Any], *rest: Any, **more: Any) -> Any:
        version = _version.get()
        if event.get("Source") == "aws.s3" and version:
            detail = json.loads(event["Detail"])
            detail["object"]["version-id"] = version
            event = {**event, "Detail": json.dumps(detail)}
        return dispatch_as_it_is(event, *rest, **more)

    fire_without_version = replace(s3, "_fire_s3_event", fire)
    dispatch_as_it_is = replace(eventbridge, "_dispatch_event", dispatch)
