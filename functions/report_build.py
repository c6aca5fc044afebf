"""Mails how a build of the training image came out, then builds what was pushed meanwhile (rule on state changes)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.steps.reporting_build import build_the_tip, report_build


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    answer = report_build(event["detail"], using.builds, using.mail)
    return {**answer, "started_build_id": build_the_tip(using.images)}
