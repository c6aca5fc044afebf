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
    return judge_ending(
        run=Run.from_payload(event["run"]),
        ladder=event["ladder"],
        attempt=Attempt.from_document(event["attempt"]),
        pipeline_execution_arn=event["pipeline_execution_arn"],
        failure=event["failure"],
        budget_usd=event["budget_usd"],
        patience=using.settings.patience,
        records=using.records,
    )
