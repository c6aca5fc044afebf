"""A training ended without a model: is it tried again, on what, or how is its end told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fine_tuning import attempts
from fine_tuning.attempts import Attempt, Ended, Lack, Patience
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.errors import FineTuningError
from fine_tuning.run import Run
from fine_tuning.service_limit import NO_INSTANCE, lack_of, quota_of

# lack → what the mail `waiting` calls it.
_REASONS: Mapping[Lack, str] = {
    "capacity": "capacity",
    "spot-wait": "capacity",
    "no-instance": "capacity",
    "quota": "quota",
    "quota-in-use": "quota-in-use",
    "quota-too-small": "quota",
    "internal-error": "sagemaker",
}
_QUOTAS = frozenset({"quota", "quota-in-use", "quota-too-small"})
_LONGEST_REASON = 300  # characters of a reason that the record keeps of each attempt
_NO_INSTANCE = "SageMaker found no instance in the time that one is waited for (InstanceWaitSeconds)."


def judge_ending(
    run: Run,
    ladder: Sequence[Mapping[str, Any]],
    attempt: Attempt,
    pipeline_execution_arn: str,
    failure: Mapping[str, Any],
    budget_usd: float | None,
    patience: Patience,
    records: RunRecords,
) -> dict[str, Any]:
    """`again` with the next attempt and its rung, else `stopped` or `failed` with what is to be told.

    Safe to repeat, and harmless when it comes late: the record of a later attempt is left alone.

    Args:
        pipeline_execution_arn: of the attempt that ended; empty where none was started.
    """
    record = records.get(run.run_id) or {}
    failure = _of_the_wait(failure, record.get("stop_requested") or {}, pipeline_execution_arn)
    ended = _ended(ladder[attempt.rung], failure, pipeline_execution_arn)
    over = (*attempt.ended, ended)
    kept: dict[str, Any] = {"attempts": Attempt(ended=over).as_document()["ended"]}
    observation = failure.get("observation") or {}
    if ended.lack:
        then = attempts.following(ladder, attempt, ended, patience, budget_usd)
        if then:
            # The next pipeline execution is not known yet; by this one nobody should look for the job.
            # From here on the record is about that one, and a slow look at this one leaves it alone.
            unknown = {**kept, "pipeline_execution_arn": "", "attempt": then.attempt.number}
            records.advance(run.run_id, "WAITING_FOR_CAPACITY", unknown, attempt.number)
            return {
                "decision": "again",
                "attempt": then.attempt.as_document(),
                "rung": then.rung,
                "wait_seconds": then.wait_seconds,
                "waiting": _waiting(ended, then.wait_seconds),
            }
        failure = {**failure, "cause": _exhausted(over)}
    records.note(run.run_id, kept, attempt=attempt.number)
    # A wait for an instance that came to its end is a lack of it, and nobody's wish.
    decision = "stopped" if observation.get("outcome") == "stopped" and not ended.lack else "failed"
    return {"decision": decision, "failure": failure}


def _of_the_wait(failure: Mapping[str, Any], requested: Mapping[str, Any], arn: str) -> Mapping[str, Any]:
    """The failure, with another name and cause where the flow itself gave the attempt up for want of an instance."""
    was_stopped = (failure.get("observation") or {}).get("outcome") == "stopped"
    of_this = requested.get("by") == NO_INSTANCE and requested.get("pipeline_execution_arn") == arn
    return {**failure, "error": NO_INSTANCE, "cause": _NO_INSTANCE} if was_stopped and of_this else failure


def _ended(rung: Mapping[str, Any], failure: Mapping[str, Any], arn: str) -> Ended:
    observation = failure.get("observation") or {}
    reason = str(failure.get("cause") or "")
    instance = {"instance_type": rung["instance_type"], "spot": rung["spot"]}
    lack = lack_of(str(failure.get("error") or ""), reason, {**observation, **instance})
    return Ended(
        instance_type=rung["instance_type"],
        spot=rung["spot"],
        status=str(observation.get("status") or failure.get("error") or ""),
        lack=lack,
        quota=quota_of(reason, instance) if lack in _QUOTAS and observation else None,
        reason=(reason.strip().splitlines() or [""])[0][:_LONGEST_REASON],
        seconds=observation.get("seconds"),
        cost_usd=observation.get("cost_usd"),
        pipeline_execution_arn=arn if observation else "",
        remaining=_remaining(observation),
    )


def _remaining(observation: Mapping[str, Any]) -> float:
    """Share of the steps that are still to be made."""
    step, total = observation.get("step"), observation.get("total")
    return 1 - min(step, total) / total if step and total else 1.0


def _waiting(ended: Ended, seconds: int) -> dict[str, Any]:
    """Facts of the mail `waiting`."""
    return {
        "reason": _REASONS[ended.lack or "capacity"],
        "instance_type": ended.instance_type,
        "spot": ended.spot,
        "detail": ended.reason,
        "retry_in_seconds": seconds,
    }


def _exhausted(over: Sequence[Ended]) -> str:
    """The cause with its remedy, as every error of this application is written."""
    last = over[-1]
    what = "SageMaker failed by itself" if last.lack == "internal-error" else "AWS gave no instance"
    said = last.reason if last.lack == "no-instance" else f"Its last words: {last.reason or 'none'}"
    cause = f"{what}. {attempts.in_words(over)} {said}"
    return str(FineTuningError(cause, attempts.remedy(over)))
