"""What follows when a training ended without a model because AWS had no instance for it, or lost it.

Capacity comes and goes, so the same rung is tried again after a wait that doubles; a quota below what is asked for does
not mend itself, and spot capacity that did not come in its time will not either, so the next rung follows at once. So
it does where SageMaker itself has looked for an instance for as long as the stack allows; only the last rung is tried
again then. A quota that other jobs use comes free when they end: on the last rung that is waited for without counting
tries. An internal error of SageMaker's is tried again on the same rung, but is no reason for a dearer one. What was
spent before counts against the budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

LONGEST_WAIT_SECONDS = 3600
# Of a run, for quotas that other jobs use: longer than one of them may take by default, a day. It costs at most 60
# tries of 32 events each of the flow's history (tests/contract/test_state_machine.py).
LONGEST_WAIT_FOR_OTHERS_SECONDS = 48 * 3600

Lack = Literal[
    "capacity", "quota", "quota-in-use", "quota-too-small", "spot-wait", "no-instance", "internal-error"
]
Rung = Mapping[str, Any]


@dataclass(frozen=True)
class Patience:
    """How often a rung is tried, and how long the first wait between two tries is."""

    tries: int
    wait_seconds: int


@dataclass(frozen=True)
class Ended:
    """An attempt that is over.

    Cost in US dollars at the on-demand price; `quota`: as Service Quotas lists it; `remaining`: share of the steps
    that were still to be made.
    """

    instance_type: str
    spot: bool
    status: str
    lack: Lack | None
    quota: str | None
    reason: str
    seconds: int | None
    cost_usd: float | None
    pipeline_execution_arn: str
    remaining: float = 1.0


@dataclass(frozen=True)
class Attempt:
    """The present start of the pipeline.

    Attributes:
        number: of all starts of this run, from 1.
        rung: place in the ladder, from 0.
        tries: starts on this rung so far; on the last one without those that found a quota in use by other jobs.
        ended: the attempts before it.
        waited_for_others: seconds that this run has waited for a quota in use without counting tries.
    """

    number: int = 1
    rung: int = 0
    tries: int = 1
    ended: tuple[Ended, ...] = ()
    waited_for_others: int = 0

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Attempt:
        return cls(**{**document, "ended": tuple(Ended(**each) for each in document["ended"])})

    def as_document(self) -> dict[str, Any]:
        return {**asdict(self), "ended": [asdict(each) for each in self.ended]}


@dataclass(frozen=True)
class Next:
    """The next start: after how many seconds, and on what."""

    attempt: Attempt
    rung: Rung
    wait_seconds: int


def following(
    ladder: Sequence[Rung],
    attempt: Attempt,
    ended: Ended,
    patience: Patience,
    budget_usd: float | None,
) -> Next | None:
    """The attempt after one that `ended`; None where the ladder is exhausted."""
    over = (*attempt.ended, ended)
    # Checkpoints carry over, so that the furthest of all attempts counts.
    remaining = min(each.remaining for each in over)
    spent = sum(each.cost_usd or 0 for each in over)
    later = [
        place
        for place in range(attempt.rung + 1, len(ladder))
        if within_budget(ladder[place], budget_usd, spent, remaining)
    ]
    others = ended.lack == "quota-in-use" and not later
    mends_itself = ended.lack in ("capacity", "quota", "quota-in-use", "no-instance", "internal-error")
    waits = (
        attempt.waited_for_others < LONGEST_WAIT_FOR_OTHERS_SECONDS
        if others
        else mends_itself and attempt.tries < patience.tries
    )
    same = [attempt.rung] if waits else []
    if ended.lack == "internal-error" and not same:
        return None
    for place in (*later, *same) if ended.lack == "no-instance" else (*same, *later):
        rung = within_budget(ladder[place], budget_usd, spent, remaining)
        if rung is None:
            continue
        stays = place == attempt.rung
        tries = attempt.tries + (not others) if stays else 1
        wait = _wait_seconds(attempt, patience, others) if stays else 0
        waited = attempt.waited_for_others + (wait if others else 0)
        return Next(Attempt(attempt.number + 1, place, tries, over, waited), rung, wait)
    return None


def _wait_seconds(attempt: Attempt, patience: Patience, others: bool) -> int:
    """Twice as long each time, an hour at most."""
    if others:
        doubled = max(patience.wait_seconds, attempt.waited_for_others)
    else:
        doubled = patience.wait_seconds * 2 ** (attempt.tries - 1)
    return min(doubled, LONGEST_WAIT_SECONDS)


def within_budget(rung: Rung, budget_usd: float | None, spent: float, remaining: float) -> Rung | None:
    """The rung with a time limit that the rest of the budget pays for; None where that is too short.

    Too short: for start-up, which every attempt begins with, and the remaining share of the steps with the trainer's
    own U-Net.
    """
    price = rung["usd_per_hour"]
    if budget_usd is None or not spent or not price:
        return rung
    runtime = min(rung["max_runtime_seconds"], math.floor((budget_usd - spent) / price * 3600))
    own, fixed = rung["own_seconds"], rung["fixed_seconds"]
    if runtime < max(1, fixed + (own - fixed) * remaining):
        return None
    times = {"MaxTrainingRuntimeInSeconds": runtime, "MaxWaitTimeInSeconds": 2 * runtime}
    parameters = [
        {**parameter, "Value": str(times.get(parameter["Name"], parameter["Value"]))}
        for parameter in rung["pipeline_parameters"]
    ]
    return {**rung, "max_runtime_seconds": runtime, "pipeline_parameters": parameters}


def cost_of_earlier(record: Mapping[str, Any]) -> float:
    """US dollars of the attempts before the one that the record's observation is of."""
    last = record.get("pipeline_execution_arn")
    earlier = (one for one in record.get("attempts") or () if one["pipeline_execution_arn"] != last)
    return float(sum(one["cost_usd"] or 0 for one in earlier))


def in_words(ended: Sequence[Ended]) -> str:
    """Such as "Tried: ml.g5.8xlarge (spot) 3 times, ml.g5.8xlarge (on demand) once."."""
    counts: dict[str, int] = {}
    for each in ended:
        name = f"{each.instance_type} ({'spot' if each.spot else 'on demand'})"
        counts[name] = counts.get(name, 0) + 1
    told = (f"{name} {'once' if count == 1 else f'{count} times'}" for name, count in counts.items())
    return f"Tried: {', '.join(told)}."


def remedy(ended: Sequence[Ended]) -> str:
    """Of a ladder that is exhausted: the quotas to raise, as far as quotas were the reason."""
    if quotas := list(dict.fromkeys(each.quota for each in ended if each.quota)):
        return to_raise(quotas)
    if any(each.lack in ("quota", "quota-in-use") for each in ended):
        return "Ask for a higher quota of pipeline executions, or wait and run it again."
    if ended and ended[-1].lack == "internal-error":
        return "Run it again later; if it stays so, ask AWS Support about the training job."
    return "Run it again later, or name further instance types in `instance_types`."


def to_raise(quotas: Sequence[str]) -> str:
    """The remedy that names the quotas to raise; not each of them is one of an instance type."""
    names = ", ".join(f"'{name}'" for name in quotas)
    of_instances = any(name.startswith("ml.") for name in quotas)
    otherwise = ", or name another instance type in `instance_types`" if of_instances else ""
    return f"Ask for a higher quota {names} in Service Quotas (Amazon SageMaker){otherwise}."
