"""What a handler works with: settings, clock and services, each made when first asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any

from fine_tuning.aws.builds import Builds
from fine_tuning.aws.executions import Executions
from fine_tuning.aws.images import Images
from fine_tuning.aws.latent_runs import LatentRuns
from fine_tuning.aws.mail import Mail
from fine_tuning.aws.objects import Objects
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.aws.sdk import client
from fine_tuning.aws.slots import SlotItem
from fine_tuning.aws.training import Training
from fine_tuning.settings import Settings


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Deployment:
    """One stack, as its functions see it. `context` is the Lambda context of the present invocation."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime] = _utc_now) -> None:
        self.settings = settings
        self.clock = clock
        self.context: Any = None

    @cached_property
    def objects(self) -> Objects:
        return Objects(self.settings.bucket_name)

    @cached_property
    def records(self) -> RunRecords:
        return RunRecords(self.settings.run_table_name, self.clock)

    @cached_property
    def slots(self) -> SlotItem:
        return SlotItem(self.settings.run_table_name, self.settings.max_runs_in_flight)

    @cached_property
    def latent_runs(self) -> LatentRuns:
        return LatentRuns(self.settings.run_table_name)

    @cached_property
    def mail(self) -> Mail:
        settings = self.settings
        return Mail(settings.topic_arn, settings.idempotency_table_name, lambda: self.context)

    @cached_property
    def executions(self) -> Executions:
        return Executions(self.settings.state_machine_arn)

    @cached_property
    def training(self) -> Training:
        return Training(self.clock, lambda: self.settings.prices)

    @cached_property
    def images(self) -> Images:
        settings = self.settings
        return Images(
            settings.image_repository_name,
            settings.source_repository_name,
            settings.build_project_name,
            settings.kohya_version,
        )

    @cached_property
    def builds(self) -> Builds:
        return Builds(self.settings.image_repository_name)


def deployment(context: Any) -> Deployment:
    """The deployment of this process's environment, in the invocation of a Lambda context."""
    current = _of_process()
    current.context = context
    return current


@cache
def _of_process() -> Deployment:
    return Deployment(Settings(os.environ))


def forget() -> None:
    """For tests, whose environment and clients change within one process."""
    _of_process.cache_clear()
    client.cache_clear()
