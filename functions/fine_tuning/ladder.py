"""The ladder of a run: the instances that it may train on, in the order in which they are tried.

The next rung is for when AWS has none of this one to give (attempts.py). All rungs train the same plan on as many
GPUs, so that a checkpoint of one is continued on another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fine_tuning import instances
from fine_tuning.findings import Finding, has_errors, warning
from fine_tuning.quote import Quote
from fine_tuning.run import MANIFEST_NAME
from fine_tuning.schedule import Schedule


@dataclass(frozen=True)
class Offer:
    """A run on one instance type.

    Attributes:
        runtime: seconds after which SageMaker ends the job.
        findings: about length, price and time; with an error the run may not train on it.
    """

    quoted: Quote
    length: Schedule
    runtime: int
    findings: tuple[Finding, ...]

    @property
    def gpus(self) -> int:
        return instances.gpus(self.quoted.instance_type)


@dataclass(frozen=True)
class Rung:
    """An instance type, on spot or on-demand capacity. Cost and price are those of on-demand capacity for both.

    `execution`: the U-Net that `estimated_seconds` and `table_seconds` expect, "plain" or "fast".
    `own_seconds`, on which budgets rest, and those of them that do not depend on the steps, are the quote's.
    """

    instance_type: str
    spot: bool
    execution: str
    estimated_seconds: int
    estimated_cost_usd: float | None
    max_runtime_seconds: int
    usd_per_hour: float | None
    table_seconds: int
    own_seconds: int
    fixed_seconds: int

    def as_document(self) -> dict[str, Any]:
        return asdict(self)


def choose(offers: Sequence[Offer]) -> tuple[list[Offer], list[Finding]]:
    """The offers that the run may be trained on, and what is to be said of the first and of those left out.

    None is left where each has an error; the first one's are told then.
    """
    possible = [offer for offer in offers if not has_errors(offer.findings)]
    if not possible:
        return [], list(offers[0].findings)
    first = possible[0]
    kept = [offer for offer in possible if offer.gpus == first.gpus]
    left_out = [_left_out(offer, first) for offer in offers if offer not in kept]
    return kept, [*first.findings, *left_out]


def rungs(offers: Sequence[Offer], spot: bool) -> tuple[Rung, ...]:
    """Every instance type on spot capacity first, where the user asked for it, then on demand."""
    return tuple(
        _rung(offer, on_spot) for on_spot in ((True, False) if spot else (False,)) for offer in offers
    )


def _rung(offer: Offer, spot: bool) -> Rung:
    quoted = offer.quoted
    return Rung(
        instance_type=quoted.instance_type,
        spot=spot,
        execution=quoted.execution,
        estimated_seconds=quoted.seconds,
        estimated_cost_usd=quoted.cost_usd,
        max_runtime_seconds=offer.runtime,
        usd_per_hour=quoted.usd_per_hour,
        table_seconds=quoted.table_seconds,
        own_seconds=quoted.own_seconds,
        fixed_seconds=quoted.fixed_seconds,
    )


def _left_out(offer: Offer, first: Offer) -> Finding:
    name = offer.quoted.instance_type
    reason = next((f.message for f in offer.findings if f.severity == "error"), None)
    if reason is None:
        reason = (
            f"It has {offer.gpus} GPUs where {first.quoted.instance_type} has {first.gpus}: the steps would be "
            "others, and no checkpoint could be continued."
        )
    remedy = "Nothing to do, or remove it from instance_types (manifest or stack)."
    return warning("rung-left-out", MANIFEST_NAME, f"{name} is not used. {reason}", remedy)
