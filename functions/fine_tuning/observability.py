"""Log lines with the run's id, a trace and a count of outcomes for every handler."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit

from fine_tuning.errors import FineTuningError

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

logger = Logger()
tracer = Tracer()
metrics = Metrics()


def observed(handler: Handler) -> Handler:
    """Around a handler.

    Every line of a run carries its id, and how the step came out is logged and counted.
    """

    @logger.inject_lambda_context(clear_state=True)
    @tracer.capture_lambda_handler(capture_response=False)
    @metrics.log_metrics
    @wraps(handler)
    def observing(event: dict[str, Any], context: Any) -> dict[str, Any]:
        if run_id := _run_id(event):
            logger.append_keys(run_id=run_id)
        try:
            answer = handler(event, context)
        except Exception as failure:  # whatever it is: logged with the run, counted, and raised again
            remedy = failure.remedy if isinstance(failure, FineTuningError) else "Mend the code."
            logger.exception("The step failed", remedy=remedy)
            _count(type(failure).__name__)
            raise
        if answer.get("run_id"):
            logger.append_keys(run_id=answer["run_id"])
        outcome = str(answer.get("status") or answer.get("decision") or "done")
        logger.info("The step is done", outcome=outcome)
        _count(outcome)
        return answer

    wrapped: Handler = observing
    return wrapped


def _count(outcome: str) -> None:
    metrics.add_dimension(name="outcome", value=outcome)
    metrics.add_metric(name="Steps", unit=MetricUnit.Count, value=1)


def _run_id(event: dict[str, Any]) -> str | None:
    run = event.get("run")
    return run.get("run_id") if isinstance(run, dict) else None
