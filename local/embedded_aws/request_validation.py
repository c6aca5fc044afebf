"""Requests judged by botocore's service models: the types, names, lengths, ranges, enumerations and patterns of AWS.

botocore's own ParamValidator checks types, required members and minima only, because the service checks the rest.
Here we are the service.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import botocore.session
from botocore.model import Shape
from botocore.validate import ParamValidator


class RequestError(Exception):
    """A request that the service refuses.

    Attributes:
        code: AWS's error code, such as ValidationException or ResourceNotFound.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@cache
def service_model(service: str) -> Any:
    """botocore's model of a service, such as "sagemaker"."""
    return botocore.session.get_session().get_service_model(service)


def validate(service: str, operation: str, request: Mapping[str, Any]) -> None:
    """Raise RequestError unless `request` is one that `operation` takes."""
    check_shape(service_model(service).operation_model(operation).input_shape, request)


def check_shape(shape: Shape, value: Mapping[str, Any]) -> None:
    """Raise RequestError unless `value` is of `shape`; all violations are named in one message, as AWS does."""
    report = ParamValidator().validate(value, shape)
    if report.has_errors():
        raise RequestError("ValidationException", report.generate_report())
    violations = list(_violations(shape, value, ""))
    if violations:
        count = f"{len(violations)} validation error{'s' if len(violations) > 1 else ''} detected: "
        raise RequestError("ValidationException", count + "; ".join(violations))


def _violations(shape: Any, value: Any, path: str) -> Iterator[str]:
    if shape.type_name == "structure":
        for name, member in value.items():
            if name in shape.members and member is not None:
                yield from _violations(shape.members[name], member, f"{path}.{name}" if path else name)
    elif shape.type_name == "list":
        yield from _outside(shape, len(value), "length", value, path)
        for index, member in enumerate(value, start=1):
            yield from _violations(shape.member, member, f"{path}.{index}.member")
    elif shape.type_name == "map":
        yield from _outside(shape, len(value), "length", value, path)
        for key, member in value.items():
            yield from _violations(shape.key, key, f"{path}.key")
            yield from _violations(shape.value, member, f"{path}.{key}.value")
    elif shape.type_name == "string":
        yield from _string_violations(shape, value, path)
    elif shape.type_name in ("integer", "long", "float", "double"):
        yield from _outside(shape, value, "value", value, path)


def _string_violations(shape: Any, value: str, path: str) -> Iterator[str]:
    if shape.enum and value not in shape.enum:
        yield _violation(value, path, f"satisfy enum value set: [{', '.join(shape.enum)}]")
    yield from _outside(shape, len(value), "length", value, path)
    pattern = shape.metadata.get("pattern")
    if pattern and not _expression(pattern).fullmatch(value):
        yield _violation(value, path, f"satisfy regular expression pattern: {pattern}")


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    """A pattern of the model, whose dialect is Java's, in Python's."""
    for java, python in (
        (r"\p{L}", r"\w"),
        (r"\p{N}", r"\d"),
        (r"\p{Z}", r"\s"),
        (r"\p{ASCII}", r"\x00-\x7f"),
    ):
        pattern = pattern.replace(java, python)
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error:  # nothing that this project uses
        return re.compile(".*", re.DOTALL)


def _outside(shape: Any, size: float, kind: str, value: object, path: str) -> Iterator[str]:
    minimum, maximum = shape.metadata.get("min"), shape.metadata.get("max")
    if minimum is not None and size < float(minimum):
        yield _violation(value, path, f"have {kind} greater than or equal to {minimum}")
    if maximum is not None and size > float(maximum):
        yield _violation(value, path, f"have {kind} less than or equal to {maximum}")


def _violation(value: object, path: str, constraint: str) -> str:
    return f"Value '{value}' at '{path}' failed to satisfy constraint: Member must {constraint}"
