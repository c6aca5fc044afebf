"""SageMaker's training instances: which GPUs and disks they have, and what an hour costs.

prices.json is dated and says where each figure comes from. A stack may give its own prices (its parameter
PricesUsdPerHour), for other regions and agreements.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("prices.json")
_SPEED_FILE = Path(__file__).with_name("speed.json")
_SPOT = "/spot"


@dataclass(frozen=True)
class Instance:
    """`gpu` is a class of speed.json; `usd_per_hour` on demand, None where no price is known; `disk_gb` of its own
    NVMe, 0 without.
    """

    name: str
    gpu: str
    gpus: int
    usd_per_hour: float | None
    verified: bool
    disk_gb: int

    @property
    def memory_gib(self) -> float:
        """Of one GPU, as its driver tells it."""
        return memory_of(self.gpu)


@dataclass(frozen=True)
class Prices:
    """US dollars an hour. `of_stack`: `ml.g5.8xlarge` on demand, `ml.g5.8xlarge/spot` on spot capacity."""

    of_stack: Mapping[str, float] = field(default_factory=dict)

    def on_demand(self, name: str) -> float | None:
        if name in self.of_stack:
            return self.of_stack[name]
        instance = find(name)
        return instance.usd_per_hour if instance else None

    def spot(self, name: str) -> float | None:
        """The stack's, or the assumed share of the on-demand price."""
        if f"{name}{_SPOT}" in self.of_stack:
            return self.of_stack[f"{name}{_SPOT}"]
        price = self.on_demand(name)
        return None if price is None else price * float(figures()["spot_share"])

    def source(self, name: str) -> str:
        if name in self.of_stack:
            return "the stack's own price"
        instance = find(name)
        looked_up = (
            "seen in third-party tables" if instance and instance.verified else "recalled, not looked up"
        )
        return f"us-east-1, {figures()['date']}, {looked_up}"


def find(name: str) -> Instance | None:
    return _table().get(name)


def gpus(name: str) -> int:
    """GPUs of an instance, each with a training process of its own; 1 where it is not in the table."""
    instance = find(name)
    return 1 if instance is None else instance.gpus


def memory_gib(name: str) -> float | None:
    """Of one GPU of an instance, as its driver tells it; None where it is not in the table."""
    instance = find(name)
    return None if instance is None else instance.memory_gib


@dataclass(frozen=True)
class Disk:
    """What a training job writes to; `is_own`: NVMe of the instance, beside which SageMaker provides no volume."""

    instance_type: str
    size_gb: int
    is_own: bool


def smallest_disk(names: Sequence[str], volume_gb: int) -> Disk:
    """Of the instance types that a run may be trained on; one that is not known is taken to have the volume alone."""
    own = {name: instance.disk_gb for name in names if (instance := find(name))}
    disks = (Disk(name, own.get(name) or volume_gb, bool(own.get(name))) for name in names)
    return min(disks, key=lambda disk: disk.size_gb)


def known() -> tuple[Instance, ...]:
    return tuple(_table().values())


@cache
def _table() -> dict[str, Instance]:
    return {name: Instance(name, **facts) for name, facts in figures()["instances"].items()}


@cache
def figures() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_FILE.read_bytes())
    return content


def memory_of(gpu: str) -> float:
    """GiB of a GPU of that class, as its driver tells it."""
    return float(_classes()[gpu]["memory_gib"])


@cache
def _classes() -> dict[str, Any]:
    """The classes of GPUs that recipe.py knows."""
    classes: dict[str, Any] = json.loads(_SPEED_FILE.read_bytes())["gpus"]
    return classes
