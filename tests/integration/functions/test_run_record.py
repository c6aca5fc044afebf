"""Whatever comes in whatever order, often, late or twice: records, slots and mails of several runs stay true.

A property: the functions' real handlers on moto, driven by flows that a machine of hypothesis plays. SageMaker and Step
Functions are a few lines each: which pipeline execution has which status, and which task token somebody waits for.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar

import judge_ending
import notify
import observe_training
import pytest
import retry_run
import stop_training
import take_slot
import watch_training
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fine_tuning import statuses
from fine_tuning.attempts import Attempt
from fine_tuning.aws import deployment, sdk
from fine_tuning.aws.training import Training
from fine_tuning.errors import FineTuningError
from fine_tuning.observation import observe
from fine_tuning.steps.queueing import settle
from tests.functions_data import event
from tests.integration.functions import quick_dynamodb
from tests.integration.functions.conftest import ACCOUNT, REGION, Stack
from tests.integration.functions.runs import REPORT, RUNG, planned
from tests.integration.functions.test_endings import LADDER

LIMIT = 2
MOST_RUNS = 6
PIPELINE = "arn:aws:sagemaker:us-east-1:111122223333:pipeline/kohya-ss-fine-tuning-pipeline"
GOING = ("slot", "start", "watch", "judge", "verify", "tell")
ENDS = ("NoCapacity", "NoCapacity", "Succeeded", "Failed", "Stopped")
DEADLINE = "2999-01-01T00:00:00+00:00"
REASONS = {"Failed": "The loss is NaN.", "NoCapacity": "CapacityError: none", "Stopped": ""}


@dataclass
class Flow:
    """An execution of the state machine.

    Attributes:
        at: what it does next, one of GOING, or `over`.
        token: the newest task token; `waits` while nobody has answered it.
        starts: ARN of each attempt's pipeline execution.
    """

    run: dict[str, Any]
    at: str = "slot"
    token: str = ""
    waits: bool = False
    attempt: dict[str, Any] = field(default_factory=lambda: Attempt().as_document())
    starts: list[str] = field(default_factory=list)
    observation: dict[str, Any] = field(default_factory=dict)
    ending: tuple[str, dict[str, Any]] = ("failed", {})
    tokens: list[tuple[str, int]] = field(default_factory=list)


class Runs(RuleBasedStateMachine):
    """Several runs of one stack; each rule is something that may happen at any moment."""

    stack: Stack
    numbers: Callable[[], int]
    present: ClassVar[Runs]

    def __init__(self) -> None:
        super().__init__()
        self.flows: dict[str, Flow] = {}
        self.jobs: dict[str, str] = {}
        self.histories: dict[str, list[dict[str, Any]]] = {}
        self.mails: list[dict[str, Any]] = []
        self.stack.mails()
        self.stack.dynamodb.delete_item(TableName="runs", Key={"run_id": {"S": "slots"}})
        type(self).present = self

    # What AWS does

    def look(self, arn: str, training: Training) -> Any:
        kind = self.jobs[arn]
        status = "Failed" if kind == "NoCapacity" else kind
        job = {"TrainingJobName": "j", "ResourceConfig": {"InstanceType": "ml.g6.2xlarge"}}
        job |= {"FailureReason": REASONS.get(kind, ""), "BillableTimeInSeconds": 60}
        job |= {"SecondaryStatus": "Training" if kind == "Executing" else "Failed"}
        seen = observe(
            {"PipelineExecutionStatus": status}, [], job, {}, training._clock(), training._prices()
        )
        return replace(seen, training_job="j")

    def stop(self, arn: str) -> bool:
        if self.jobs[arn] != "Executing":
            return False
        self.jobs[arn] = "Stopped"
        return True

    def find(self, run_id: str) -> str | None:
        return next(iter(reversed(self.flows[run_id].starts)), None)

    def executing(self) -> list[tuple[str, str]]:
        return [
            (arn, run_id)
            for run_id, flow in self.flows.items()
            for arn in flow.starts
            if self.jobs[arn] == "Executing"
        ]

    def answer(self, token: str, output: dict[str, Any]) -> None:
        flow = next((flow for flow in self.flows.values() if flow.token == token and flow.waits), None)
        if flow is None or flow.at == "over":
            return
        flow.waits = False
        if flow.at == "slot":
            assert output == {"status": "granted"}
            flow.at = "start"
            return
        # The truth about the pipeline execution that the flow watches, and about no other.
        assert output["terminal"]
        assert output["status"] == {"NoCapacity": "Failed"}.get(
            self.jobs[flow.starts[-1]], self.jobs[flow.starts[-1]]
        )
        flow.observation = output
        flow.at = "verify" if output["outcome"] == "succeeded" else "judge"

    # What happens

    def flow(self, data: st.DataObject, *places: str) -> Flow:
        return data.draw(st.sampled_from([flow for flow in self.flows.values() if flow.at in places]))

    def any_at(self, *places: str) -> bool:
        return any(flow.at in places for flow in self.flows.values())

    def new_token(self, flow: Flow) -> str:
        flow.token, flow.waits = f"t{self.numbers()}", True
        return flow.token

    @initialize()
    def more_drops_than_may_train(self) -> None:
        for _ in range(LIMIT + 2):
            self.drop()

    @precondition(lambda self: len(self.flows) < MOST_RUNS)
    @rule()
    def drop(self) -> None:
        run = planned(self.stack, f"cats-{self.numbers():012}")
        self.stack.put(f"runs/{run['run_id']}/report.json", REPORT)
        self.flows[run["run_id"]] = Flow(run)

    @precondition(lambda self: self.any_at(*GOING))
    @rule(
        data=st.data(), steps=st.integers(1, 7), status=st.sampled_from((None, *ENDS)), is_told=st.booleans()
    )
    def goes_on(self, data: st.DataObject, steps: int, status: str | None, is_told: bool) -> None:
        """As a flow does when nothing comes in between; else hardly a run would come far."""
        flow = self.flow(data, *GOING)
        for _ in range(steps):
            if status and flow.at == "watch" and flow.waits and self.jobs[flow.starts[-1]] == "Executing":
                self.jobs[flow.starts[-1]] = status
            if flow.at == "start":
                self.start(flow, is_told)
            elif step := self.steps.get(flow.at):
                step(self, flow)

    def ask_for_a_slot(self, flow: Flow) -> None:
        with contextlib.suppress(FineTuningError):
            take_slot.handler({"run": flow.run, "token": self.new_token(flow)}, self.stack.context)

    def start(self, flow: Flow, is_told: bool) -> None:
        arn = f"{PIPELINE}/execution/{self.numbers():012}"
        self.jobs[arn] = "Executing"
        flow.starts.append(arn)
        flow.at = "watch"
        if is_told:
            facts = {
                "plan": {**LADDER[0], "total_steps": 9, "max_runtime_seconds": 9},
                "pipeline_execution_arn": arn,
            }
            facts["attempt"] = flow.attempt["number"]
            self.tell(flow, "started", facts)

    def watch(self, flow: Flow) -> None:
        self.look_at(flow, len(flow.starts), self.new_token(flow))

    @precondition(lambda self: any(len(flow.starts) > 1 for flow in self.flows.values()))
    @rule(data=st.data())
    def look_late_at_an_earlier_attempt(self, data: st.DataObject) -> None:
        flow = data.draw(st.sampled_from([flow for flow in self.flows.values() if len(flow.starts) > 1]))
        self.look_at(flow, data.draw(st.integers(1, len(flow.starts) - 1)), "of-an-earlier-attempt")

    def look_at(self, flow: Flow, number: int, token: str) -> None:
        payload = {"run": flow.run, "pipeline_execution_arn": flow.starts[number - 1], "token": token}
        payload |= {"deadline": DEADLINE, "rung": RUNG, "attempt": number}
        with contextlib.suppress(FineTuningError):
            watch_training.handler(payload, self.stack.context)

    @precondition(lambda self: "Executing" in self.jobs.values())
    @rule(data=st.data(), status=st.sampled_from(ENDS))
    def job_ends(self, data: st.DataObject, status: str) -> None:
        arn = data.draw(st.sampled_from([arn for arn, now in self.jobs.items() if now == "Executing"]))
        self.jobs[arn] = status

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def event_comes(self, data: st.DataObject) -> None:
        """In time, late or again; of the present attempt or of an earlier one."""
        arn = data.draw(st.sampled_from(sorted(self.jobs)))
        heard = event("sagemaker-pipeline-execution", pipelineExecutionArn=arn)
        with contextlib.suppress(FineTuningError):
            observe_training.handler(heard, self.stack.context)

    def judge(self, flow: Flow) -> None:
        """Twice, as when the first time's answer was lost."""
        failure = {"stage": "WatchTraining", "error": "TrainingFailed", "observation": flow.observation}
        payload = {"run": flow.run, "ladder": LADDER, "attempt": flow.attempt}
        payload |= {"failure": {**failure, "cause": flow.observation["reason"]}}
        payload |= {"pipeline_execution_arn": flow.starts[-1], "budget_usd": None}
        answers = [judge_ending.handler(payload, self.stack.context) for _ in range(2)]
        assert answers[0] == answers[-1]
        if answers[0]["decision"] == "again":
            flow.at, flow.attempt = "start", answers[0]["attempt"]
        else:
            facts = answers[0]["failure"]
            kind = answers[0]["decision"]
            flow.at, flow.ending = "tell", (kind, facts["observation"] if kind == "stopped" else facts)

    def verify(self, flow: Flow) -> None:
        verified = {"model": {"uri": "s3://b/m.safetensors", "size": 9, "sha256": "ab", "tensors": 2}}
        verified |= {"provenance_uri": "s3://b/p.json", "samples": [], "rehearsal": False}
        records = deployment.deployment(None).records
        records.advance(
            flow.run["run_id"], "VERIFYING", {"verified": verified, "observation": flow.observation}
        )
        flow.at, flow.ending = "tell", ("completed", {**verified, "observation": flow.observation})

    def tell_the_end(self, flow: Flow) -> None:
        """Twice, too; the flow is over afterwards, and of one that failed Step Functions tells."""
        for _ in range(2):
            self.tell(flow, *flow.ending)
        self.tell(flow, "image-missing", {})  # and in other words
        flow.at = "over"
        if flow.ending[0] != "completed":
            self.end(flow, "FAILED")

    steps: ClassVar[dict[str, Callable[[Runs, Flow], None]]] = {
        "slot": ask_for_a_slot,
        "watch": watch,
        "judge": judge,
        "verify": verify,
        "tell": tell_the_end,
    }

    @precondition(lambda self: self.any_at(*GOING))
    @rule(
        data=st.data(),
        how=st.sampled_from((None, None, None, "ABORTED", "FAILED", "TIMED_OUT")),
        is_heard=st.booleans(),
    )
    def flow_ends(self, data: st.DataObject, how: str | None, is_heard: bool) -> None:
        """Not whenever it may, or few would come far."""
        if how is None:
            return
        flow = self.flow(data, *GOING)
        flow.at = "over"
        if is_heard:
            self.end(flow, how)

    @precondition(lambda self: self.any_at("over") and len(self.flows) < MOST_RUNS)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        flow = self.flow(data, "over")
        with contextlib.suppress(FineTuningError):
            answer = retry_run.handler({"run_id": flow.run["run_id"]}, self.stack.context)
            assert answer["run_id"] not in self.flows or self.flows[answer["run_id"]].at == "slot"
            record = self.stack.record(answer["run_id"])
            deployment.deployment(None).records.advance(answer["run_id"], "PLANNED", {"plan": LADDER[0]})
            self.stack.put(f"runs/{answer['run_id']}/report.json", REPORT)
            names = ("run_id", "bucket", "dataset_prefix", "manifest_key", "manifest_version", "retries")
            self.flows.setdefault(answer["run_id"], Flow({name: record[name] for name in names}))

    @rule()
    def slots_are_settled(self) -> None:
        using = deployment.deployment(None)
        settle(using.records, using.slots)

    def tell(self, flow: Flow, kind: str, facts: dict[str, Any]) -> None:
        with contextlib.suppress(FineTuningError):
            notify.handler({"run": flow.run, "kind": kind, "facts": facts}, self.stack.context)

    def end(self, flow: Flow, how: str) -> None:
        ended = event("stepfunctions-execution-aborted", status=how, name=flow.run["run_id"])
        stop_training.handler(ended, self.stack.context)

    # What holds at any moment

    @invariant()
    def records_go_forward(self) -> None:
        for run_id, flow in self.flows.items():
            record = self.stack.record(run_id)
            history, before = record["history"], self.histories.get(run_id, [])
            assert history[: len(before)] == before
            way = [change["status"] for change in history]
            assert all(one in statuses.predecessors(other) for one, other in pairwise(way))
            assert way[-1] == record["status"]
            self.histories[run_id] = history
            # Nobody looks for the job at the address of an attempt that is over.
            if record.get("pipeline_execution_arn") and not statuses.is_final(record["status"]):
                assert record["pipeline_execution_arn"] == flow.starts[-1]

    @invariant()
    def no_more_runs_train_than_may(self) -> None:
        state = deployment.deployment(None).slots.read()
        assert len(state.holders) <= LIMIT
        assert not state.holders & set(state.queue)
        training = {run_id for run_id, flow in self.flows.items() if flow.at not in ("slot", "over")}
        assert training <= state.holders

    @invariant()
    def an_end_is_told_once_and_truly(self) -> None:
        self.mails += self.stack.mails()
        for run_id in self.flows:
            told = self.final_mails(run_id)
            assert len(told) <= 1
            assert all(statuses.OF_MAIL[kind] == self.stack.record(run_id)["status"] for kind in told)

    def final_mails(self, run_id: str) -> list[str]:
        kinds = [
            mail["MessageAttributes"]["kind"]["Value"]
            for mail in self.mails
            if mail["MessageAttributes"]["run_id"]["Value"] == run_id
        ]
        return [kind for kind in kinds if kind in statuses.OF_MAIL]

    def teardown(self) -> None:
        """Whatever happened: when every flow is over and was heard of, nothing runs and everybody was told."""
        for flow in self.flows.values():
            flow.at = "over"
            self.end(flow, "FAILED")
        self.slots_are_settled()
        self.an_end_is_told_once_and_truly()
        for run_id in self.flows:
            record = self.stack.record(run_id)
            assert statuses.is_final(record["status"])
            assert [statuses.OF_MAIL[kind] for kind in self.final_mails(run_id)] == [record["status"]]
        assert self.executing() == []
        state = deployment.deployment(None).slots.read()
        assert not state.holders
        assert not state.queue


def test_runs_stay_true_in_any_order(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_RUNS_IN_FLIGHT", str(LIMIT))
    deployment.forget()
    quick_dynamodb.install(monkeypatch, ACCOUNT, REGION)
    number = 0

    def numbers() -> int:
        nonlocal number
        number += 1
        return number

    class Machine(Runs):
        pass

    Machine.stack, Machine.numbers = stack, staticmethod(numbers)

    def send(taskToken: str, output: str) -> dict[str, Any]:  # noqa: N803
        Machine.present.answer(taskToken, json.loads(output))
        return {}

    monkeypatch.setattr(sdk.client("stepfunctions"), "send_task_success", send)
    monkeypatch.setattr(Training, "observe", lambda self, arn: Machine.present.look(arn, self))
    monkeypatch.setattr(Training, "stop", lambda self, arn: Machine.present.stop(arn))
    monkeypatch.setattr(Training, "find", lambda self, pipeline, name: Machine.present.find(name))
    once = settings(
        max_examples=32,
        stateful_step_count=24,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # to make a failure shorter takes minutes
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=once)
