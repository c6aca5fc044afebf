"""Log lines with the run's id, traces, and metrics (embedded in the log) for every handler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from aws_lambda_powertools import Logger, Tracer, single_metric
from aws_lambda_powertools.metrics import MetricUnit

from fine_tuning import pipeline_execution
from fine_tuning.errors import FineTuningError
from fine_tuning.measurements import Measurement
from fine_tuning.run import MANIFEST_NAME, Run

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

logger = Logger()
tracer = Tracer()
# It logs every failure that passes through it once more, without the run.
logging.getLogger("aws_lambda_powertools.tracing").propagate = False


def observed(handler: Handler) -> Handler:
    """Around a handler: every line names what it is about, and how the step came out is logged."""

    @logger.inject_lambda_context(clear_state=True)
    @tracer.capture_lambda_handler(capture_response=False)
    @wraps(handler)
    def observing(event: dict[str, Any], context: Any) -> dict[str, Any]:
        logger.append_keys(**subject_of(event))
        try:
            answer = handler(event, context)
        except Exception as failure:  # whatever it is: logged with the run and raised again
            remedy = failure.remedy if isinstance(failure, FineTuningError) else "Mend the code."
            logger.exception("The step failed", remedy=remedy)
            raise
        if answer.get("run_id"):
            about(run_id=answer["run_id"])
        outcome = str(answer.get("status") or answer.get("decision") or "done")
        logger.info("The step is done", outcome=outcome)
        return answer

    wrapped: Handler = observing
    return wrapped


def about(**keys: str) -> None:
    """Puts keys into every further line of this invocation, for what an event does not say itself."""
    logger.append_keys(**keys)


def publish(measurements: Iterable[Measurement], **subject: str) -> None:
    """Metrics in CloudWatch's embedded format; each in a line of its own, because their dimensions differ.

    `subject` is in the line beside the metric and is no dimension of it.
    """
    for measured in measurements:
        dimensions = dict(measured.dimensions)
        unit = MetricUnit(measured.unit)
        with single_metric(measured.name, unit, measured.value, default_dimensions=dimensions) as metric:
            for key, value in subject.items():
                metric.add_metadata(key, value)


def subject_of(event: dict[str, Any]) -> dict[str, str]:
    """What an event is about, as keys for log lines: a run wherever the event tells it."""
    run, detail = event.get("run"), event.get("detail")
    if isinstance(run, dict) and run.get("run_id"):
        return {"run_id": run["run_id"]}
    if event.get("run_id"):
        return {"run_id": event["run_id"]}  # a person asks to run it once more
    if not isinstance(detail, dict):
        return {}
    if "object" in detail and detail["object"]["key"].endswith(f"/{MANIFEST_NAME}"):
        dropped, bucket = detail["object"], detail["bucket"]["name"]
        return {"run_id": Run.of_manifest(bucket, dropped["key"], dropped.get("version-id") or "null").run_id}
    if "stateMachineArn" in detail:
        return {"run_id": detail["name"]}  # an execution has its run's id as its name
    if "build-id" in detail:
        return {"build_id": detail["build-id"]}
    execution = pipeline_execution.id_of_event(event)
    return {"pipeline_execution_id": execution} if execution else {}
