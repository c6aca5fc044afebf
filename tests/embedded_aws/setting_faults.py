"""Faults of the embedded AWS, set and removed by a test (local/embedded_aws/faults.py)."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

_numbers = count(1)


@dataclass(frozen=True)
class Fault:
    """What happens where, to which occasions; the attributes are those of the embedded AWS's own faults."""

    at: str
    matching: tuple[str, ...]
    effect: dict[str, Any]
    skip: int = 0
    times: int = 1

    def to(self, *names: str) -> Fault:
        """The same for occasions that also carry these names."""
        return Fault(self.at, (*self.matching, *names), self.effect, self.skip, self.times)


@contextmanager
def faults(endpoint: str, *wanted: Fault) -> Iterator[list[str]]:
    """These faults while the block runs; the answer is their names."""
    names = [f"fault-{next(_numbers)}" for _ in wanted]
    try:
        for name, fault in zip(names, wanted, strict=True):
            document = vars(fault)
            ask(endpoint, "PUT", name, document)
        yield names
    finally:
        for name in names:
            ask(endpoint, "DELETE", name)


def struck(endpoint: str, name: str) -> int:
    """How often a fault that is set has struck."""
    listed = {fault["name"]: fault["struck"] for fault in ask(endpoint, "GET")["faults"]}
    return int(listed[name])


def repair(endpoint: str, names: Sequence[str]) -> None:
    """None of these strikes any more; how often each has struck stays known."""
    for fault in ask(endpoint, "GET")["faults"]:
        name, times = fault.pop("name"), fault.pop("struck")
        if name in names:
            ask(endpoint, "PUT", name, {**fault, "times": times})


def ask(endpoint: str, method: str, name: str = "", document: object = None) -> Any:
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(f"{endpoint}/_embedded/faults/{name}", body, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())
