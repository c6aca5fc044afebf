"""The functions' environment, typed. The names are those of docs/contracts.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from fine_tuning.attempts import Patience
from fine_tuning.errors import ConfigurationError
from fine_tuning.instances import Prices

_T = TypeVar("_T")


def _prices(text: str) -> dict[str, float]:
    """Of `ml.g5.8xlarge=3.06,ml.g5.8xlarge/spot=1.2`. Raises ValueError, as number types do, for anything else."""
    prices = {name: float(price) for name, price in (each.split("=") for each in text.split(","))}
    if not all(name and 0 < price < math.inf for name, price in prices.items()):
        raise ValueError("a price is not above 0")
    return prices


@dataclass(frozen=True)
class Settings:
    """Reads a variable when it is asked for, because a function is given only those that it needs."""

    environment: Mapping[str, str]

    @property
    def bucket_name(self) -> str:
        return self._read("BUCKET_NAME", str)

    @property
    def run_table_name(self) -> str:
        return self._read("RUN_TABLE_NAME", str)

    @property
    def idempotency_table_name(self) -> str:
        return self._read("IDEMPOTENCY_TABLE_NAME", str)

    @property
    def topic_arn(self) -> str:
        return self._read("TOPIC_ARN", str)

    @property
    def state_machine_arn(self) -> str:
        return self._read("STATE_MACHINE_ARN", str)

    @property
    def pipeline_name(self) -> str:
        return self._read("PIPELINE_NAME", str)

    @property
    def image_repository_name(self) -> str:
        return self._read("IMAGE_REPOSITORY_NAME", str)

    @property
    def source_repository_name(self) -> str:
        return self._read("SOURCE_REPOSITORY_NAME", str)

    @property
    def build_project_name(self) -> str:
        return self._read("BUILD_PROJECT_NAME", str)

    @property
    def kohya_version(self) -> str:
        return self._read("KOHYA_VERSION", str)

    @property
    def instance_types(self) -> tuple[str, ...]:
        """The ladder of manifests that name none, cheapest first."""
        names = self._read("INSTANCE_TYPES", str).split(",")
        return tuple(name.strip() for name in names if name.strip())

    @property
    def training_volume_gb(self) -> int:
        return self._read("TRAINING_VOLUME_GB", int)

    @property
    def max_training_runtime_seconds(self) -> int:
        return self._read("MAX_TRAINING_RUNTIME_SECONDS", int)

    @property
    def max_cost_usd(self) -> float | None:
        """None: the stack sets no limit."""
        return self._read("MAX_COST_USD", float) if self.environment.get("MAX_COST_USD") else None

    @property
    def max_runs_in_flight(self) -> int:
        return self._read("MAX_RUNS_IN_FLIGHT", int)

    @property
    def prices(self) -> Prices:
        """The stack's own prices over those of prices.json, in US dollars an hour.

        Raises ConfigurationError, which may end a run that is planned, but none whose job is paid for.
        """
        text = self.environment.get("PRICES_USD_PER_HOUR", "")
        try:
            return Prices(_prices(text) if text else {})
        except ValueError as cause:
            raise ConfigurationError(
                f"The stack's prices are '{text}', which is not a price above 0 for each instance type.",
                "Deploy with PricesUsdPerHour in the form ml.g5.8xlarge=3.06,ml.g5.8xlarge/spot=1.2.",
            ) from cause

    @property
    def stall_seconds(self) -> int:
        return self._read("STALL_SECONDS", int)

    @property
    def progress_milestones(self) -> tuple[int, ...]:
        """Percent; none: no mail tells of progress."""
        return tuple(int(each) for each in self.environment.get("PROGRESS_MILESTONES", "").split(",") if each)

    @property
    def patience(self) -> Patience:
        return Patience(self._read("CAPACITY_TRIES", int), self._read("CAPACITY_WAIT_SECONDS", int))

    @property
    def settle_seconds(self) -> int:
        return self._read("SETTLE_SECONDS", int)

    @property
    def upload_wait_seconds(self) -> int:
        return self._read("UPLOAD_WAIT_SECONDS", int)

    @property
    def shard_size(self) -> int:
        return self._read("SHARD_SIZE", int)

    def _read(self, name: str, kind: Callable[[str], _T]) -> _T:
        text = self.environment.get(name, "")
        if not text:
            raise ConfigurationError(
                f"The variable {name} is not set.", f"Set {name} for this function in template.yaml."
            )
        try:
            return kind(text)
        except ValueError as cause:
            raise ConfigurationError(
                f"The variable {name} is '{text}', which is not a number.",
                f"Correct {name} in template.yaml.",
            ) from cause
