"""Decides what follows a training that ended without a model (state JudgeEnding)."""

from __future__ import annotations

from typing import Any

from fine_tuning.attempts import Attempt
from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.run import Run
from fine_tuning.steps.judging import judge_ending


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    run, attempt = Run.from_payload(event["run"]), Attempt.from_document(event["attempt"])
    ladder, failure, budget = event["ladder"], event["failure"], event.get("budget_usd")
    arn = event.get("pipeline_execution_arn")  # a flow of an older version of this stack does not say
    return judge_ending(run, ladder, attempt, failure, budget, using.settings.patience, using.records, arn)
