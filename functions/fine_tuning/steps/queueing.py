"""A run waits for its turn, and hands its slot on when it is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fine_tuning.aws.executions import answer_token
from fine_tuning.aws.mail import Mail
from fine_tuning.aws.objects import Objects
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.aws.slots import SlotItem
from fine_tuning.errors import FineTuningError
from fine_tuning.observability import logger
from fine_tuning.run import Run
from fine_tuning.statuses import is_final
from fine_tuning.steps.telling import tell_in_passing

GRANTED = {"status": "granted"}


def take_slot(run: Run, token: str, records: RunRecords, slots: SlotItem) -> dict[str, Any]:
    """Answers the token at once where a slot is free; else whoever hands one on does.

    Safe to repeat, with another token too: a run has one slot or one place in the queue.
    """
    record = records.find(run.run_id)
    if is_final(record["status"]):
        return {"status": record["status"], "position": None}
    # Before anybody can be asked to answer it.
    records.note(run.run_id, {"task_token": token})
    state, granted = slots.request(run.run_id, record["created_at"])
    if run.run_id in state.holders:
        hand_over({*granted, run.run_id}, records, slots)
        return {"status": "granted", "position": None}
    hand_over(granted, records, slots)
    # Refused where the slot was handed over in this very moment.
    records.advance(run.run_id, "WAITING_FOR_SLOT")
    return {"status": "waiting", "position": state.position(run.run_id)}


def tell_waiting(
    run: Run, answer: Mapping[str, Any], objects: Objects, records: RunRecords, mail: Mail
) -> None:
    """One mail a run that has to wait, if there is room for it among others."""
    if answer["status"] == "waiting":
        facts = {"reason": "slot", "position": answer["position"]}
        tell_in_passing(run, "waiting", facts, objects, records, mail)


def release(run_ids: Iterable[str], records: RunRecords, slots: SlotItem) -> None:
    """Frees the slots of runs that are over and hands them on. Safe to repeat."""
    _, granted = slots.release(*run_ids)
    hand_over(granted, records, slots)


def settle(records: RunRecords, slots: SlotItem) -> None:
    """Mends what a function that died in between has left: slots of runs that are over, hand-overs without answer."""
    state = slots.read()
    over = [each for each in (*state.holders, *state.queue) if _is_over(each, records)]
    state, _ = slots.release(*over)
    hand_over(state.holders, records, slots)


def leave(run_id: str, records: RunRecords, slots: SlotItem) -> None:
    """Frees the slot of a run if it is over. What fails here is mended by the next reconcile: the run has ended."""
    try:
        if _is_over(run_id, records):
            release([run_id], records, slots)
    except FineTuningError as problem:
        logger.warning(
            "The slot was not handed on; the reconcile does it", run_id=run_id, problem=str(problem)
        )


def hand_over(run_ids: Iterable[str], records: RunRecords, slots: SlotItem) -> None:
    """Lets the flows go on that were given a slot, unless they have gone on already."""
    for run_id in sorted(run_ids):
        if _is_over(run_id, records) or is_final(records.advance(run_id, "STARTING").status):
            release([run_id], records, slots)
            continue
        record = records.find(run_id)
        if record["status"] == "STARTING" and (token := record.get("task_token")):
            answer_token(token, GRANTED)
            records.forget_token(run_id, token)


def _is_over(run_id: str, records: RunRecords) -> bool:
    record = records.get(run_id)
    return record is None or is_final(record["status"])
