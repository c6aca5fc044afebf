"""DynamoDB's typed values as plain ones, and the other way."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any


def typed(item: Mapping[str, Any]) -> Any:
    """Plain values as DynamoDB's typed ones; it knows decimals, not floats."""
    from boto3.dynamodb.types import TypeSerializer

    serializer = TypeSerializer()
    return {name: serializer.serialize(_with_decimals(value)) for name, value in item.items()}


def plain(item: Mapping[str, Any]) -> dict[str, Any]:
    from boto3.dynamodb.types import TypeDeserializer

    deserializer = TypeDeserializer()
    return {name: _without_decimals(deserializer.deserialize(value)) for name, value in item.items()}


def _with_decimals(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(str(value))
    if isinstance(value, Mapping):
        return {name: _with_decimals(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_with_decimals(one) for one in value]
    return value


def _without_decimals(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: _without_decimals(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_decimals(one) for one in value]
    return value
