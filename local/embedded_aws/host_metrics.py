"""SageMaker's own metrics of a job's instance, which it publishes whatever the container does."""

import os
import time
from typing import Any

from botocore.exceptions import ClientError

from local.embedded_aws.registration import log
from local.embedded_aws.training_metrics import NAMESPACE

SECONDS = 5.0  # SageMaker's minute, as much shorter as the watch's ten minutes are


class HostMetrics:
    """CPUUtilization of this machine; GPUs it may have none.

    Args:
        cloudwatch: the job role's client.
    """

    def __init__(self, cloudwatch: Any, job_name: str) -> None:
        self._cloudwatch, self._job_name = cloudwatch, job_name
        self._due = 0.0

    def publish(self) -> None:
        """At most once in SECONDS."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + SECONDS
        host = [{"Name": "Host", "Value": f"{self._job_name}/algo-1"}]
        datum = {"MetricName": "CPUUtilization", "Dimensions": host, "Unit": "Percent", "Value": busy()}
        try:
            self._cloudwatch.put_metric_data(
                Namespace=NAMESPACE, MetricData=[{**datum, "Timestamp": time.time()}]
            )
        except ClientError as error:
            # SageMaker goes on without metrics when the role may not publish them.
            log.warning("metrics of the host of %s were not published: %s", self._job_name, error)


def busy() -> float:
    """Percent of one core, added up over all, by the load of the last minute."""
    cores = os.cpu_count() or 1
    return round(min(os.getloadavg()[0], cores) * 100, 1)
