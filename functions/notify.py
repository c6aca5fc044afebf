"""Records how a run came out and mails it (states Tell…)."""

from __future__ import annotations

from typing import Any

from fine_tuning.aws.deployment import deployment
from fine_tuning.observability import observed
from fine_tuning.run import Run
from fine_tuning.steps.queueing import leave
from fine_tuning.steps.telling import tell


@observed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    using = deployment(context)
    run, kind, facts = Run.from_payload(event["run"]), event["kind"], event.get("facts") or {}
    try:
        return tell(run, kind, facts, using.objects, using.records, using.mail)
    finally:  # who waits for the slot does not wait for the mail
        leave(run.run_id, using.records, using.slots)
