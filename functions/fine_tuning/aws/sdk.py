"""boto3 clients, made once a process and only when first used."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def client(service: str) -> Any:
    """A client whose requests end within a function's minute; its type is named where it is used.

    Three attempts of at most 3 s and 8 s, with pauses between them of at most 1 s and 2 s, make 36 s: an
    endpoint that does not answer becomes an error that is told, not a function that is killed.
    """
    import boto3
    from botocore.config import Config

    # `total` counts the first attempt; botocore's `max_attempts` does not.
    retries: Any = {"mode": "standard", "total_max_attempts": 3}
    # Of what asks in several threads; a connection is made when it is needed.
    config = Config(retries=retries, connect_timeout=3, read_timeout=8, max_pool_connections=32)
    # boto3's overloads know each service by a literal name; here the name is a variable.
    return boto3.client(service, config=config)  # type: ignore[call-overload]
