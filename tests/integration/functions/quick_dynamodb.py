"""moto's DynamoDB without the requests around it, whose signing, JSON and checks take nine tenths of the time.

For tests that make thousands of requests. Expressions and conditions are moto's own; each request is judged and carried
out in one, as by DynamoDB, which moto's are not where threads meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

import pytest
from moto.dynamodb.exceptions import ConditionalCheckFailed
from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends

from fine_tuning.aws import sdk

Request = Mapping[str, Any]
Answer = dict[str, Any]


def install(monkeypatch: pytest.MonkeyPatch, account: str, region: str) -> None:
    """The functions' client asks moto's tables themselves; its other operations stay requests."""
    client, backend, lock = sdk.client("dynamodb"), dynamodb_backends[account][region], Lock()

    def alone(operation: str, act: Callable[[DynamoDBBackend, Request], Answer]) -> Callable[..., Answer]:
        def call(**request: Any) -> Answer:
            try:
                with lock:
                    return act(backend, request)
            except ConditionalCheckFailed as refused:
                error = {"Code": "ConditionalCheckFailedException", "Message": str(refused)}
                raise client.exceptions.ConditionalCheckFailedException({"Error": error}, operation) from None

        return call

    for name, act in {"get_item": get_item, "put_item": put_item, "update_item": update_item}.items():
        monkeypatch.setattr(client, name, alone(name, act))


def get_item(backend: DynamoDBBackend, request: Request) -> Answer:
    item = backend.get_item(request["TableName"], request["Key"])
    return {"Item": item.to_json()["Attributes"]} if item else {}


def put_item(backend: DynamoDBBackend, request: Request) -> Answer:
    backend.put_item(request["TableName"], request["Item"], **_expressions(request))
    return {}


def update_item(backend: DynamoDBBackend, request: Request) -> Answer:
    item = backend.update_item(
        request["TableName"], request["Key"], request["UpdateExpression"], **_expressions(request)
    )
    return {"Attributes": item.to_json()["Attributes"]} if "ReturnValues" in request else {}


def _expressions(request: Request) -> dict[str, Any]:
    return {
        "condition_expression": request.get("ConditionExpression"),
        "expression_attribute_names": request.get("ExpressionAttributeNames", {}),
        "expression_attribute_values": request.get("ExpressionAttributeValues", {}),
    }
