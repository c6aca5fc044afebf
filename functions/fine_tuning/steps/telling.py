"""Tells a run's user, and ends the run where that is what is told: the final status once, the e-mail once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fine_tuning import console, failure, measurements, messages, pipeline_execution, statuses
from fine_tuning.attempts import Ended, cost_of_earlier
from fine_tuning.aws.executions import Ending
from fine_tuning.aws.mail import Mail
from fine_tuning.aws.objects import Objects
from fine_tuning.aws.run_records import Advance, RunRecords
from fine_tuning.errors import ConfigurationError, FineTuningError
from fine_tuning.messages import Message
from fine_tuning.observability import logger, publish
from fine_tuning.run import Run


def tell(
    run: Run, kind: str, facts: Mapping[str, Any], objects: Objects, records: RunRecords, mail: Mail
) -> dict[str, str | None]:
    """Records what `kind` makes of the run and mails it, unless the run ended otherwise before.

    The mail goes out after the status, so that nobody reads of an end that the record does not know; a
    failure in between is repaired by telling again.
    """
    message, attributes = _compose(run, kind, facts, objects, records)
    status = statuses.OF_MAIL.get(kind)
    if status is not None:
        advance = records.advance(run.run_id, status, attributes)
        if advance.outcome == "refused":
            return {"status": advance.status, "message_id": None}
        _measure(run, advance, records)
    known = records.find(run.run_id)
    message_id = _send(run, message, known, records, mail)
    # A job that went to another rung, or was told of twice, is one that is paid for once.
    if kind == "started" and not any(one["kind"] == kind for one in known.get("notifications", ())):
        publish(measurements.of_start(facts["plan"]), run_id=run.run_id)
    return {"status": message.status, "message_id": message_id}


def tell_in_passing(
    run: Run, kind: str, facts: Mapping[str, Any], objects: Objects, records: RunRecords, mail: Mail
) -> None:
    """Mails what is no end. The run goes on whether that could be told or not."""
    try:
        tell(run, kind, facts, objects, records, mail)
    except FineTuningError as problem:
        logger.warning("A mail could not go out", run_id=run.run_id, kind=kind, problem=str(problem))


def tell_from_record(
    record: Mapping[str, Any], how: Ending, objects: Objects, records: RunRecords, mail: Mail
) -> str | None:
    """Tells of a run whose flow is over and did not tell: the end that its record proves, else the flow's own.

    The answer is the SNS message id, None where another end came first.
    """
    run = Run.from_payload(record)
    if kind := _proven(record, how):
        facts = _recorded(kind, record, records)
        return tell(run, kind, facts, objects, records, mail)["message_id"]
    status = record["status"]
    if not statuses.is_final(status):
        status = "STOPPED" if how.status == "ABORTED" else "FAILED"
    why = failure.of_ended_execution(how.status, how.cause, record.get("observation"))
    if known := record.get("failure"):
        why = replace(why, cause=known["cause"], remedy=known["remedy"])
    advance = records.advance(run.run_id, status, {"failure": why.as_document()})
    if advance.outcome == "refused":
        return None
    _measure(run, advance, records)
    told = records.find(run.run_id)
    message = messages.FAILURES[status.lower()](run, why, told.get("plan", {}), cost_of_earlier(told))
    return _send(run, message, told, records, mail)


def _proven(record: Mapping[str, Any], how: Ending) -> str | None:
    """The kind of the mail that a record has all facts for; None where it knows of no such end."""
    if record["status"] in ("COMPLETED", "REJECTED", "REPEATED"):
        return str(record["status"]).lower()
    # The model was proved and is paid for; only the notifier failed. Whoever aborts wants it stopped.
    was_verified = record["status"] == "VERIFYING" and "verified" in record
    return "completed" if was_verified and how.status != "ABORTED" else None


def _recorded(kind: str, record: Mapping[str, Any], records: RunRecords) -> dict[str, Any]:
    """The facts of a mail, out of the record."""
    if kind == "completed":
        return {**record["verified"], "observation": record["observation"]}
    if kind == "repeated":
        repeats = record["repeats"]
        return {"repeats": repeats, "repeats_status": records.find(repeats)["status"]}
    return {}


def _measure(run: Run, advance: Advance, records: RunRecords) -> None:
    """Once a run, with the one change to its final status."""
    if advance.outcome == "changed":
        publish(measurements.of_ending(records.find(run.run_id)), run_id=run.run_id)


def _send(run: Run, message: Message, known: Mapping[str, Any], records: RunRecords, mail: Mail) -> str:
    """The SNS message id; the mail links to the pages that `known`, the run's record, tells of."""
    message_id = mail.send_once(message.with_links(console.of_run(known)))
    records.add_notification(run.run_id, message.kind, message_id)
    return message_id


def _compose(
    run: Run, kind: str, facts: Mapping[str, Any], objects: Objects, records: RunRecords
) -> tuple[Message, dict[str, Any]]:
    """The e-mail, and what the record keeps of the facts."""
    if kind == "rejected":
        return messages.rejected(run, objects.read_document(run.report_key)), {}
    if kind == "repeated":
        model = records.find(facts["repeats"]).get("model") or {}
        return messages.repeated(run, facts, model.get("uri")), {"repeats": facts["repeats"]}
    if kind == "started":
        # Kept before anything else: from here on a job is paid for, and by this it is found and stopped.
        kept = {"plan": facts["plan"], **pipeline_execution.attributes(facts["pipeline_execution_arn"])}
        records.note(run.run_id, kept, attempt=facts.get("attempt"))
        tried = [Ended(**one) for one in records.find(run.run_id).get("attempts", ())]
        return messages.started(run, facts, objects.read_document(run.report_key), tried), {}
    if kind == "waiting":
        return messages.waiting(run, facts), {}
    if kind == "progress":
        return (messages.unseen if "unseen_since" in facts else messages.progress)(run, facts), {}
    if kind == "completed":
        known = records.find(run.run_id)
        kept = {name: facts[name] for name in ("model", "observation", "rehearsal") if name in facts}
        return messages.completed(run, facts, known.get("plan", {}), cost_of_earlier(known)), kept
    if kind == "failed":
        why = failure.of_flow(facts)
        known = records.find(run.run_id)
        message = messages.failed(run, why, known.get("plan", {}), cost_of_earlier(known))
        return message, {"failure": why.as_document()}
    if kind == "stopped":
        known = records.find(run.run_id)
        why = failure.of_stop(facts, known.get("stop_requested"))
        message = messages.stopped(run, why, known.get("plan", {}), cost_of_earlier(known))
        return message, {"failure": why.as_document()}
    if kind == "image-missing":
        message = messages.image_missing(run)
        cause = "There is no training image and no source to build one from."
        remedy = f"Run ./dev push-image-source, then ./dev retry {run.run_id}."
        return message, {"failure": {"cause": cause, "remedy": remedy}}
    raise ConfigurationError(f"There is no e-mail of the kind '{kind}'.", "Correct the state machine.")
