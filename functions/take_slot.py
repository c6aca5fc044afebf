"""Waits until the run may train (state TakeSlot)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.run import Run
from fine_tuning.steps.queueing import take_slot, tell_waiting


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    run, token = Run.from_payload(event["run"]), event["token"]
    answer = take_slot(run, token, using.records, using.slots)
    tell_waiting(run, answer, using.objects, using.records, using.mail)
    return answer
