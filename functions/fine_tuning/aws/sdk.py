"""boto3 clients, made once a process and only when first used."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def client(service: str) -> Any:
    """A client with short time-outs and the SDK's standard retries; its type is named where it is used."""
    import boto3
    from botocore.config import Config

    config = Config(retries={"mode": "standard", "max_attempts": 4}, connect_timeout=5, read_timeout=30)
    # boto3's overloads know each service by a literal name; here the name is a variable.
    return boto3.client(service, config=config)  # type: ignore[call-overload]
