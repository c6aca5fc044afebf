"""One fault on a deployed stack: it is set, a dataset is dropped, and what became of it is gathered."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from fine_tuning import statuses
from tests.embedded_aws.setting_faults import Fault, faults, repair, struck
from tests.end_to_end.journey import REGION, Stack, dataset, eventually, quick_manifest
from tests.faults.invariants import Evidence, is_over, violations

# Of a machine that has more to do; a run takes 5 to 40 seconds.
SECONDS_TO_END = 900.0
SECONDS_TO_ACT = 180.0  # until what a person waits for to act has come
# Longer than Lambda waits before it repeats an invocation by an event: whatever is told twice is told by then.
SECONDS_OF_SILENCE = 2.0
COMPLETED = frozenset({"COMPLETED"})
Act = Callable[["Scene"], None]


@dataclass(frozen=True)
class Scenario:
    """A named fault and what is true of a run that it strikes.

    Attributes:
        what: the fault in a sentence, for docs/reliability.md.
        faults: what is set before the drop; each must strike.
        ends: the final statuses that would be true.
        act: what somebody does while the run goes on.
        most_mails: 2 only where the outcome of Publish itself is lost.
        rungs: instances that are tried.
        says: what the final mail says among other things.
        manifest: keys beside those that make a training quick.
        alone: nothing that is struck tells its run, so that no other may go on meanwhile.
    """

    name: str
    what: str
    faults: tuple[Fault, ...] = ()
    ends: frozenset[str] = COMPLETED
    act: Act | None = None
    most_mails: int = 1
    rungs: int = 1
    says: tuple[str, ...] = ()
    manifest: dict[str, Any] = field(default_factory=dict)
    files: int = 2
    alone: bool = False


@dataclass
class Scene:
    """A run in progress, as an `act` meets it."""

    stack: Stack
    prefix: str
    before: dict[str, str]
    faults: Sequence[str] = ()
    redeploy: Callable[[], object] = lambda: None

    @property
    def record(self) -> dict[str, Any]:
        return self.stack.records(self.prefix)[-1]

    def reaches(self, *wanted: str, seconds: float = SECONDS_TO_ACT) -> dict[str, Any]:
        """The record once it has, or has had, one of the statuses."""

        def there() -> dict[str, Any] | None:
            records = self.stack.records(self.prefix)
            had = {change["status"] for record in records for change in record["history"]}
            return records[-1] if had & set(wanted) else None

        return eventually(
            there, f"{self.prefix} in {wanted}", seconds, lambda: self.stack.records(self.prefix)
        )

    def strikes(self) -> None:
        """Waits until the first fault has struck."""
        eventually(lambda: struck(self.stack.endpoint, self.faults[0]), "a strike", SECONDS_TO_ACT)

    def job(self, status: str = "InProgress", secondary: str | None = None) -> dict[str, Any]:
        """The run's training job once it is in a status."""
        run_id = self.reaches("STARTING")["run_id"]

        def there() -> dict[str, Any] | None:
            jobs = self.stack.training_jobs(run_id)
            fitting = [
                job
                for job in jobs
                if job["TrainingJobStatus"] == status and secondary in (None, job["SecondaryStatus"])
            ]
            return fitting[0] if fitting else None

        return eventually(
            there, f"a job {status} {secondary}", SECONDS_TO_ACT, lambda: self.stack.training_jobs(run_id)
        )

    def interrupt(self) -> None:
        """AWS takes the spot instance away from the training job that runs."""
        name = self.job(secondary="Training")["TrainingJobName"]
        headers = {
            "X-Amz-Target": "SageMaker.EmbeddedInterruptTrainingJob",
            "Content-Type": "application/x-amz-json-1.1",
        }
        body = json.dumps({"TrainingJobName": name}).encode()
        signed = AWSRequest("POST", f"{self.stack.endpoint}/", headers=headers, data=body)
        SigV4Auth(Credentials("test", "test"), "sagemaker", REGION).add_auth(signed)
        request = urllib.request.Request(str(signed.url), body, dict(signed.headers))
        before = self._interruptions(name)
        with urllib.request.urlopen(request, timeout=10):
            eventually(lambda: self._interruptions(name) > before, "an interruption", SECONDS_TO_ACT)

    def _interruptions(self, job: str) -> int:
        described = self.stack.client("sagemaker").describe_training_job(TrainingJobName=job)
        return sum(each["Status"] == "Interrupted" for each in described["SecondaryStatusTransitions"])

    def abort(self) -> None:
        arn = self.record["execution_arn"]
        self.stack.client("stepfunctions").stop_execution(executionArn=arn, cause="changed my mind")

    def repair(self) -> None:
        """No fault strikes any more; those that have struck stay counted."""
        repair(self.stack.endpoint, self.faults)

    def delete(self, key: str) -> None:
        self.stack.client("s3").delete_object(Bucket=self.stack.bucket, Key=key)
        if key.startswith(self.prefix):  # what a person does to the dataset is no deed of the application
            self.before = self.stack.versions(self.prefix)


@dataclass(frozen=True)
class Outcome:
    """How a scenario came out. `spared`: faults that never struck, which would prove nothing."""

    scenario: Scenario
    evidence: Evidence
    violations: list[str]
    spared: int
    seconds: float

    @property
    def status(self) -> str:
        return str(self.evidence.records[0]["status"]) if self.evidence.records else "none"


def play(stack: Stack, scenario: Scenario, number: int, redeploy: Callable[[], object]) -> Outcome:
    """Plays a scenario to its end. `redeploy` brings the stack to another version."""
    began = time.monotonic()
    name = f"{number:02}-{scenario.name}"
    wanted = [fault if scenario.alone else fault.to(name) for fault in scenario.faults]
    with faults(stack.endpoint, *wanted) as set_faults:
        # A caption of its own, or it would repeat another scenario's run.
        files = {**dataset(scenario.files), "2_phx thing/00.txt": f"phx thing {name}".encode()}
        prefix = stack.drop(name, files, quick_manifest(**scenario.manifest))
        scene = Scene(stack, prefix, stack.versions(prefix), set_faults, redeploy)
        if scenario.act:
            scenario.act(scene)
        wait_for_the_end(scene)
        spared = sum(struck(stack.endpoint, fault) == 0 for fault in set_faults)
    seen = evidence(scene)
    problems = violations(seen, scenario.ends, scenario.most_mails, scenario.rungs)
    problems += unsaid(stack, seen, scenario.says)
    return Outcome(scenario, seen, problems, spared, time.monotonic() - began)


def unsaid(stack: Stack, seen: Evidence, says: Sequence[str]) -> list[str]:
    """What the final mail ought to say and does not."""
    mails = stack.mails(seen.records[0]["run_id"]) if seen.records else []
    final = [str(m.get_content()) for m in mails if m["X-Attribute-kind"] in statuses.OF_MAIL]
    return [f"no final mail says {words!r}" for words in says if not any(words in body for body in final)]


def wait_for_the_end(scene: Scene) -> None:
    """Until nothing has moved for a while, or time is up: then the evidence says what is missing."""
    until = time.monotonic() + SECONDS_TO_END
    quiet_since: float | None = None
    while time.monotonic() < until:
        if not is_over(evidence(scene)):
            quiet_since = None
        elif quiet_since is None:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > SECONDS_OF_SILENCE:
            return
        time.sleep(0.5)


def evidence(scene: Scene) -> Evidence:
    stack, records = scene.stack, scene.stack.records(scene.prefix)
    if len(records) != 1:
        return Evidence(records, [])
    record = records[0]
    run_id = record["run_id"]
    kinds = [str(mail["X-Attribute-kind"]) for mail in stack.mails(run_id)]
    if not statuses.is_final(record["status"]):  # spares the looks that a run on its way does not need
        return Evidence(records, kinds)
    executions = pipeline_executions(stack, run_id)
    return Evidence(
        records,
        kinds,
        jobs_of(stack, executions),
        list(executions.values()),
        flow_of(stack, record),
        model_size(stack, record),
        scene.before,
        stack.versions(scene.prefix),
    )


def pipeline_executions(stack: Stack, run_id: str) -> dict[str, str]:
    """ARN → status of the run's pipeline executions."""
    pages = stack.client("sagemaker").get_paginator("list_pipeline_executions")
    return {
        execution["PipelineExecutionArn"]: execution["PipelineExecutionStatus"]
        for page in pages.paginate(PipelineName=stack.outputs["PipelineName"])
        for execution in page["PipelineExecutionSummaries"]
        if execution["PipelineExecutionDisplayName"].startswith(run_id)
    }


def jobs_of(stack: Stack, executions: Iterable[str]) -> list[str]:
    """The statuses of their training jobs, whose names hold the last part of an execution's ARN."""
    sagemaker = stack.client("sagemaker")
    return [
        job["TrainingJobStatus"]
        for arn in executions
        for job in sagemaker.list_training_jobs(NameContains=arn.rpartition("/")[2])["TrainingJobSummaries"]
    ]


def flow_of(stack: Stack, record: dict[str, Any]) -> str | None:
    step_functions = stack.client("stepfunctions")
    try:
        return stack.execution_status(record)
    except step_functions.exceptions.ExecutionDoesNotExist:
        return None


def model_size(stack: Stack, record: dict[str, Any]) -> int | None:
    uri = (record.get("model") or {}).get("uri")
    if not uri:
        return None
    s3 = stack.client("s3")
    key = str(uri).removeprefix(f"s3://{stack.bucket}/")
    found = s3.list_objects_v2(Bucket=stack.bucket, Prefix=key).get("Contents", [])
    return next((int(item["Size"]) for item in found if item["Key"] == key), None)
