"""Which instances a run may be trained on, and in which order they are tried."""

from __future__ import annotations

from typing import Any

from fine_tuning import plan
from fine_tuning.limits import Limits
from fine_tuning.pipeline_parameters import ladder_of
from fine_tuning.plan import Decision
from tests.functions_data import RUN
from tests.unit.functions.test_plan import FILES, LIMITS, codes, decide

CHEAP, DEAR, MANY = "ml.g6.2xlarge", "ml.g6e.2xlarge", "ml.p4d.24xlarge"


def tried(decision: Decision) -> list[tuple[str, bool]]:
    return [(rung.instance_type, rung.spot) for rung in decision.rungs]


def left_out(decision: Decision) -> list[str]:
    return [f.message for f in decision.findings if f.code == "rung-left-out"]


def test_the_manifests_ladder_is_tried_in_its_order_and_else_the_stacks() -> None:
    assert tried(decide(instance_types=[CHEAP, DEAR])) == [(CHEAP, False), (DEAR, False)]
    limits = Limits("v25.2.2", (DEAR, CHEAP), 50, 86400, None)
    assert tried(decide(limits=limits)) == [(DEAR, False), (CHEAP, False)]


def test_spot_capacity_of_every_type_comes_before_any_on_demand() -> None:
    decision = decide(instance_types=[CHEAP, DEAR], spot=True)
    assert tried(decision) == [(CHEAP, True), (DEAR, True), (CHEAP, False), (DEAR, False)]
    assert decision.summary is not None
    assert (decision.summary["instance_type"], decision.summary["spot"]) == (CHEAP, True)


def test_each_rung_is_quoted_for_itself() -> None:
    slow, fast = decide(instance_types=[CHEAP, DEAR]).rungs
    assert slow.estimated_seconds > fast.estimated_seconds
    assert slow.max_runtime_seconds > fast.max_runtime_seconds
    assert slow.estimated_cost_usd != fast.estimated_cost_usd
    assert slow.own_seconds > fast.own_seconds > fast.fixed_seconds > 0


def test_a_rung_above_the_budget_is_left_out_and_that_is_said() -> None:
    dear_quote = decide(instance_types=[DEAR]).rungs[0].estimated_cost_usd
    assert dear_quote is not None
    decision = decide(instance_types=[DEAR, CHEAP], max_cost_usd=dear_quote - 0.01)
    assert tried(decision) == [(CHEAP, False)]
    (message,) = left_out(decision)
    assert DEAR in message
    assert "budget" in message
    assert codes(decision) == []


def test_no_rung_within_the_budget_is_an_error_of_the_first() -> None:
    decision = decide(instance_types=[CHEAP, DEAR], max_cost_usd=0.01)
    assert not decision.accepted
    assert codes(decision) == ["budget-exceeded"]
    assert left_out(decision) == []


def test_a_rung_with_another_number_of_gpus_is_left_out_because_its_steps_would_be_others() -> None:
    decision = decide(instance_types=[CHEAP, MANY, DEAR])
    assert tried(decision) == [(CHEAP, False), (DEAR, False)]
    (message,) = left_out(decision)
    assert "8 GPUs" in message


def test_the_rungs_differ_in_nothing_but_the_instance_and_its_time() -> None:
    """One set of inputs and one folder of checkpoints: what one rung began, the next continues."""
    decision = plan.plan(
        RUN,
        _manifest(instance_types=[CHEAP, DEAR], spot=True),
        FILES,
        None,
        [],
        LIMITS,
    )
    rungs = ladder_of(RUN, decision, LIMITS)
    of_each = [{p["Name"]: p["Value"] for p in rung["pipeline_parameters"]} for rung in rungs]
    own = {"TrainingInstanceType", "TrainingMode", "MaxTrainingRuntimeInSeconds", "MaxWaitTimeInSeconds"}
    shared = [{name: value for name, value in each.items() if name not in own} for each in of_each]
    assert shared == [shared[0]] * 4
    assert shared[0]["CheckpointS3Location"].endswith(f"/checkpoints/{RUN.run_id}/")
    assert [each["TrainingMode"] for each in of_each] == ["spot", "spot", "on-demand", "on-demand"]


def _manifest(**keys: Any) -> plan.Manifest:
    return plan.Manifest.from_document({"version": 1, **keys})
