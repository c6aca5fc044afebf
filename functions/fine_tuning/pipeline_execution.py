"""How SageMaker names a pipeline's execution and its jobs."""

from __future__ import annotations

import re
from typing import Any

# SageMaker names a pipeline's jobs pipelines-<execution id>-<step>-<random>.
_JOB_NAME = re.compile(r"pipelines-([a-z0-9]{12})-.+")


def id_of(arn: str) -> str:
    """`arn:…:pipeline/<name>/execution/<id>` → `<id>`."""
    return arn.rpartition("/")[2]


def attributes(arn: str) -> dict[str, str]:
    """What the run's record keeps, so that the job is found by its run and the run by its job."""
    return {"pipeline_execution_arn": arn, "pipeline_execution_id": id_of(arn)}


def id_of_event(event: dict[str, Any]) -> str | None:
    """The pipeline execution's id in any of SageMaker's three events; None for a job of nobody's pipeline."""
    detail = event.get("detail", {})
    if arn := detail.get("pipelineExecutionArn"):
        return id_of(arn)
    match = _JOB_NAME.fullmatch(detail.get("TrainingJobName", ""))
    return match[1] if match else None
