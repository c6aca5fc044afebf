"""A training job's log lines: to CloudWatch Logs, to a file, and through the metric definitions to CloudWatch."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from local.embedded_aws.log_streams import create_log_stream
from local.embedded_aws.registration import log
from local.embedded_aws.training_metrics import NAMESPACE, MetricParser, datum

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
METRICS_A_REQUEST = 500


class TrainingLog:
    """Collects lines from the job's reader thread; `flush` sends them.

    Args:
        logs, cloudwatch: the job role's clients.
        job_name: also the stream's first part.
        path: the file that gets each line at once.
        parser: the job's metric definitions.
    """

    def __init__(self, logs: Any, cloudwatch: Any, job_name: str, path: Path, parser: MetricParser) -> None:
        self._logs, self._cloudwatch, self._job_name, self._parser = logs, cloudwatch, job_name, parser
        self._stream = f"{job_name}/algo-1-{int(time.time())}"
        self._lines: list[dict[str, Any]] = []
        self._metrics: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def open(self) -> None:
        """Create the stream, and the group for the account's first job; what the role may not do is raised."""
        create_log_stream(self._logs, LOG_GROUP, self._stream)

    def add(self, line: str) -> None:
        now = time.time()
        with self._lock:
            self._file.write(line + "\n")
            self._lines.append({"timestamp": int(now * 1000), "message": line or " "})
            self._metrics.extend(self._parser.parse(line, now))

    def flush(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
            metrics, self._metrics = self._metrics, []
        if lines:
            self._logs.put_log_events(logGroupName=LOG_GROUP, logStreamName=self._stream, logEvents=lines)
        self._publish(metrics)

    def _publish(self, metrics: Sequence[dict[str, Any]]) -> None:
        try:
            for first in range(0, len(metrics), METRICS_A_REQUEST):
                data = [
                    datum(metric, self._job_name) for metric in metrics[first : first + METRICS_A_REQUEST]
                ]
                self._cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=data)
        except ClientError as error:
            # SageMaker goes on without metrics when the role may not publish them.
            log.warning("metrics of %s were not published: %s", self._job_name, error)

    def close(self) -> None:
        self.flush()
        self._file.close()
