"""Every fault that the suite plays; docs/reliability.md lists the same."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.embedded_aws.setting_faults import Fault
from tests.end_to_end.journey import QUICK, eventually
from tests.faults.scene import SECONDS_TO_ACT, Act, Scenario, Scene

THROTTLED = "Lambda.TooManyRequestsException"
TIMED_OUT = "Sandbox.Timedout"
CRASHED = "Runtime.ExitError"
FAILED = frozenset({"FAILED"})
STOPPED = frozenset({"STOPPED"})
# Long enough that somebody can act while it trains.
FIRST, SECOND = "ml.g6.2xlarge", "ml.g5.2xlarge"
NO_CAPACITY = {"fail": "CapacityError: Unable to provision requested ML compute capacity."}
NO_QUOTA = "The account-level service limit '{} for training job usage' is 0 Instances, with current utilization of 0"
QUOTA_IN_USE = (
    "The account-level service limit 'ml.g5.8xlarge for training job usage' is 1 Instances, with current utilization "
    "of 1 Instances and a request delta of 1 Instances."
)
INTERNAL_ERROR = {"fail": "InternalServerError: We encountered an internal error. Please try again."}
LONG = {"config": {**QUICK, "max_train_steps": 4000}}
FOR_GOOD = 1000
# Shorter than what the flow gives any of its functions.
LONGEST_HOLD = 50

STEPS = (
    "ValidateManifest",
    "TakeInventory",
    "InspectShard",
    "PlanRun",
    "ResolveImage",
    "ClaimIdentity",
    "TakeOverLatents",
    "WatchTraining",
    "VerifyModel",
)


def function(name: str, *matching: str, error: str = CRASHED, times: int = 1, after: bool = False) -> Fault:
    """Invocations of a function fail by themselves."""
    return Fault("function", (f"{name}Function", *matching), {"error": error, "afterwards": after}, 0, times)


def held(name: str) -> Fault:
    """A function that does not begin before the act that is played meanwhile is over."""
    return Fault("function", (f"{name}Function",), {"seconds": LONGEST_HOLD})


def clock(seconds: float) -> Fault:
    """Every Lambda of the run has a clock that is fast by so much."""
    return Fault("function", (), {"clock": seconds}, 0, FOR_GOOD)


def call(*matching: str, times: int = 1, skip: int = 0, **effect: Any) -> Fault:
    """Requests of a service are refused, slow or unanswered."""
    return Fault("call", matching, effect, skip, times)


def event(*matching: str, times: int = FOR_GOOD, **effect: Any) -> Fault:
    return Fault("event", matching, effect, 0, times)


def of_mail(kind: str) -> str:
    """In the payload of the notifying function."""
    return f'"kind": "{kind}"'


def _while_held(act: Act) -> Act:
    """It begins when the scenario's fault holds something and ends before that goes on, on a machine of any speed."""

    def play(scene: Scene) -> None:
        scene.strikes()
        act(scene)
        scene.repair()

    return play


def _abort_at(*statuses: str) -> Act:
    def act(scene: Scene) -> None:
        scene.reaches(*statuses)
        scene.abort()

    return act


def _abort_in_training(scene: Scene) -> None:
    scene.job(secondary="Training")
    scene.abort()


def _let_time_pass(scene: Scene) -> None:
    """A look finds that the training was last seen to move a quarter of an hour ago; a test cannot wait for that."""
    scene.job(secondary="Training")
    since = (datetime.now(UTC) - timedelta(minutes=15)).isoformat(timespec="seconds")
    changed_at = ""

    def is_seen() -> bool:
        nonlocal changed_at
        record = scene.record
        progress = record.get("progress", {})
        if progress.get("since") == since:
            return bool(record["observation"]["observed_at"] > changed_at) or "stop_requested" in record
        if "stop_requested" in record:
            return True
        # Not yet, or a look that was going on has written what it had read before.
        if progress.get("phase") == "Training" and progress.get("step") is None:
            changed_at = datetime.now(UTC).isoformat(timespec="seconds")
            times = [name for name in ("since", "unseen_since") if name in progress]
            scene.stack.table.update_item(
                Key={"run_id": record["run_id"]},
                UpdateExpression=f"SET {', '.join(f'progress.{name} = :since' for name in times)}",
                ExpressionAttributeValues={":since": since},
            )
        return False

    eventually(
        is_seen, "a look at a training that has long stood still", SECONDS_TO_ACT, lambda: scene.record
    )


def _see_nothing_for_long(scene: Scene) -> None:
    _let_time_pass(scene)
    run_id = scene.record["run_id"]

    def is_told() -> bool:
        return any(mail["X-Attribute-kind"] == "progress" for mail in scene.stack.mails(run_id))

    eventually(is_told, "the mail that nobody sees its progress", SECONDS_TO_ACT, lambda: scene.record)


def _stop_the_job(scene: Scene) -> None:
    job = scene.job(secondary="Training")
    scene.stack.client("sagemaker").stop_training_job(TrainingJobName=job["TrainingJobName"])


def _stop_the_pipeline(scene: Scene) -> None:
    scene.job(secondary="Training")
    record = scene.reaches("TRAINING")
    scene.stack.client("sagemaker").stop_pipeline_execution(
        PipelineExecutionArn=record["pipeline_execution_arn"]
    )


def _interrupt_twice(scene: Scene) -> None:
    scene.interrupt()
    scene.interrupt()


def _deploy_while_it_trains(scene: Scene) -> None:
    scene.job(secondary="Training")
    scene.redeploy()
    scene.job()  # still trains: it began in the old version and ends in the new one


def _sns_comes_back(scene: Scene) -> None:
    """After everybody who could tell has given up; the schedule then finds a run that nobody was told of."""
    record = scene.reaches("VERIFYING")
    scene.stack.execution_ended(record, seconds=120)
    time.sleep(4)  # the rule on ended executions is tried again, too
    scene.repair()
    _the_schedule_comes(scene)


def _delete_an_image(scene: Scene) -> None:
    scene.reaches("PLANNED")
    scene.delete(f"{scene.prefix}2_phx thing/00.jpg")


def _delete_the_manifest(scene: Scene) -> None:
    scene.reaches("RECEIVED")
    scene.delete(f"{scene.prefix}manifest.json")


def _delete_the_plan(scene: Scene) -> None:
    record = scene.reaches("PLANNED")
    scene.delete(f"runs/{record['run_id']}/input/plan.json")


def _delete_the_model(scene: Scene) -> None:
    job = scene.job("Completed")
    address = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{scene.stack.bucket}/")
    listed = scene.stack.client("s3").list_objects_v2(Bucket=scene.stack.bucket, Prefix=address)["Contents"]
    (key,) = [
        item["Key"] for item in listed if item["Key"].endswith(".safetensors") and "/model/" in item["Key"]
    ]
    scene.delete(key)


def _abort_unheard(scene: Scene) -> None:
    _abort_in_training(scene)
    time.sleep(1)
    _the_schedule_comes(scene)


def _the_schedule_comes(scene: Scene) -> None:
    """To a run that is no longer young; a test cannot wait for that."""
    old = (datetime.now(UTC) - timedelta(minutes=20)).isoformat(timespec="milliseconds")
    scene.stack.table.update_item(
        Key={"run_id": scene.record["run_id"]},
        UpdateExpression="SET created_at = :old",
        ExpressionAttributeValues={":old": old},
    )
    functions = scene.stack.client("lambda").list_functions()["Functions"]
    (name,) = [each["FunctionName"] for each in functions if "ReconcileRuns" in each["FunctionName"]]
    scene.stack.client("lambda").invoke(
        FunctionName=name, InvocationType="Event", Payload=json.dumps({"source": "aws.events"}).encode()
    )


def _no_quota(name: str) -> Fault:
    refused = {"code": "ResourceLimitExceeded", "message": NO_QUOTA.format(name)}
    return Fault("job-request", (name,), refused, 0, FOR_GOOD)


SCENARIOS: tuple[Scenario, ...] = (
    # The longest, so that nothing is waited for at the end
    Scenario(
        "deployed-meanwhile",
        "a new version is deployed while the run trains",
        (Fault("container", (), {"seconds": SECONDS_TO_ACT}),),
        act=_while_held(_deploy_while_it_trains),
        manifest={"config": {**QUICK, "max_train_steps": 40}},
    ),
    Scenario(
        "spot-interrupted-twice",
        "the spot instance is taken away twice",
        act=_interrupt_twice,
        manifest={"spot": True, "config": {**QUICK, "max_train_steps": 80}},
    ),
    # Lambda
    *(
        Scenario(
            f"crash-after-{step.lower()}",
            f"`{step}` crashes after its side effect",
            (function(step, after=True),),
        )
        for step in STEPS
    ),
    Scenario(
        "crash-after-started-mail",
        "the notifier crashes after it told of the start",
        (function("Notify", of_mail("started"), after=True),),
    ),
    Scenario(
        "crash-after-final-mail",
        "the notifier crashes after it told of the end",
        (function("Notify", of_mail("completed"), after=True),),
    ),
    Scenario(
        "crash-of-the-observer",
        "the Lambda behind SageMaker's events crashes every time",
        (function("ObserveTraining", times=FOR_GOOD),),
    ),
    Scenario(
        "lambda-throttled",
        "each of the flow's Lambdas is throttled twice",
        tuple(function(step, error=THROTTLED, times=2) for step in (*STEPS, "Notify")),
    ),
    Scenario(
        "lambda-times-out",
        "each of the flow's Lambdas times out once",
        tuple(function(step, error=TIMED_OUT) for step in (*STEPS, "Notify")),
    ),
    Scenario(
        "lambda-down",
        "the inspecting Lambda crashes every time",
        (function("InspectShard", times=FOR_GOOD),),
        FAILED,
    ),
    Scenario(
        "notifier-down",
        "the notifier crashes every time",
        (function("Notify", times=FOR_GOOD),),
    ),
    # S3
    Scenario(
        "s3-slow", "reading the dataset takes seconds", (call("s3:GET", "datasets/", times=6, seconds=2),)
    ),
    Scenario("s3-503", "S3 answers 503 twice", (call("s3:GET", times=2, code="SlowDown", status=503),)),
    Scenario(
        "s3-503-for-long",
        "S3 answers 503 for longer than the SDK tries",
        (call("s3:GET", "PlanRun", times=3, code="SlowDown", status=503),),
    ),
    Scenario(
        "s3-put-503",
        "S3 refuses the plan's files with 503",
        (call("s3:PUT", "PlanRun", times=3, code="ServiceUnavailable", status=503),),
    ),
    Scenario(
        "s3-answer-lost",
        "S3's answer to a write is lost",
        (call("s3:PUT", "PlanRun", drop=True, afterwards=True),),
    ),
    Scenario(
        "manifest-deleted",
        "the manifest is deleted while its run goes on",
        ends=frozenset({"COMPLETED", "FAILED"}),
        act=_delete_the_manifest,
    ),
    Scenario(
        "image-deleted",
        "an image is deleted between its inspection and its training",
        (held("ResolveImage"),),
        FAILED,
        _while_held(_delete_an_image),
    ),
    Scenario(
        "plan-deleted",
        "the plan is deleted before it is used",
        (held("ResolveImage"),),
        FAILED,
        _while_held(_delete_the_plan),
    ),
    Scenario(
        "model-deleted",
        "the model is deleted before it is proved",
        (held("VerifyModel"),),
        FAILED,
        _while_held(_delete_the_model),
    ),
    # DynamoDB
    Scenario(
        "dynamodb-throttled",
        "DynamoDB throttles for longer than the SDK tries",
        (call("dynamodb:UpdateItem", "PlanRun", times=3, code="ProvisionedThroughputExceededException"),),
    ),
    Scenario(
        "dynamodb-answer-lost",
        "the answer to the change to VERIFYING is lost, its repetition fails the condition",
        (
            call(
                "dynamodb:UpdateItem",
                "VERIFYING",
                "VerifyModel",
                code="InternalServerError",
                status=500,
                afterwards=True,
            ),
        ),
    ),
    Scenario(
        "dynamodb-condition-fails",
        "the conditional change to TRAINING loses once",
        (call("dynamodb:UpdateItem", "TRAINING", "WatchTraining", code="ConditionalCheckFailedException"),),
    ),
    Scenario(
        "dynamodb-create-lost",
        "the answer to the record's creation is lost",
        (
            call(
                "dynamodb:PutItem",
                "ValidateManifest",
                code="InternalServerError",
                status=500,
                afterwards=True,
            ),
        ),
    ),
    # ECR
    Scenario(
        "ecr-throttled",
        "ECR throttles for longer than the SDK tries",
        (call("ecr:DescribeImages", "ResolveImage", times=3, code="ThrottlingException"),),
        alone=True,
    ),
    # SNS
    Scenario(
        "sns-down",
        "SNS is down for longer than the SDK tries",
        (call("sns:Publish", "completed", times=3, code="InternalError", status=500),),
    ),
    Scenario(
        "sns-answer-lost",
        "SNS's answer to the final mail is lost",
        (call("sns:Publish", "completed", code="InternalError", status=500, afterwards=True),),
        most_mails=2,
    ),
    Scenario(
        "sns-down-for-long",
        "SNS is down for longer than anybody tries; the schedule tells the run when it is back",
        (call("sns:Publish", "completed", times=FOR_GOOD, code="InternalError", status=500),),
        act=_sns_comes_back,
    ),
    # SageMaker
    Scenario(
        "start-throttled",
        "StartPipelineExecution is throttled twice",
        (call("sagemaker:StartPipelineExecution", times=2, code="ThrottlingException"),),
    ),
    Scenario(
        "start-answer-lost",
        "the answer to StartPipelineExecution is lost",
        (call("sagemaker:StartPipelineExecution", drop=True, afterwards=True),),
    ),
    Scenario(
        "look-throttled",
        "DescribePipelineExecution is throttled",
        (call("sagemaker:DescribePipelineExecution", times=3, code="ThrottlingException"),),
    ),
    Scenario(
        "look-internal-error",
        "DescribePipelineExecution answers 500",
        (call("sagemaker:DescribePipelineExecution", times=3, code="InternalFailure", status=500),),
    ),
    Scenario(
        "job-internal-error",
        "the job ends with SageMaker's internal error once",
        (Fault("job", (), INTERNAL_ERROR),),
    ),
    Scenario(
        "job-internal-errors",
        "every job ends with SageMaker's internal error",
        (Fault("job", (), INTERNAL_ERROR, 0, FOR_GOOD),),
        FAILED,
        says=("SageMaker failed by itself. Tried: ml.g5.8xlarge (on demand) 2 times",),
    ),
    Scenario(
        "no-capacity",
        "there is no spot capacity of either instance type, and on demand there is",
        tuple(
            Fault("job", (name, '"EnableManagedSpotTraining": true'), NO_CAPACITY, 0, FOR_GOOD)
            for name in (FIRST, SECOND)
        ),
        rungs=3,
        manifest={"instance_types": [FIRST, SECOND], "spot": True},
    ),
    Scenario(
        "no-capacity-at-all",
        "there is no capacity of any instance type of the ladder",
        tuple(Fault("job", (name,), NO_CAPACITY, 0, FOR_GOOD) for name in (FIRST, SECOND)),
        FAILED,
        rungs=2,
        says=("Tried: ml.g6.2xlarge (on demand) 2 times, ml.g5.2xlarge (on demand) 2 times.",),
        manifest={"instance_types": [FIRST, SECOND]},
    ),
    Scenario(
        "no-instance",
        "SageMaker looks for an instance of the first type of the ladder for longer than it is waited for",
        (Fault("job", (FIRST,), {"pending": 600}, 0, FOR_GOOD),),
        rungs=2,
        manifest={"instance_types": [FIRST, SECOND]},
    ),
    Scenario(
        "no-instance-at-all",
        "SageMaker looks for an instance of every type of the ladder for longer than it is waited for",
        tuple(Fault("job", (name,), {"pending": 600}, 0, FOR_GOOD) for name in (FIRST, SECOND)),
        FAILED,
        rungs=2,
        says=(
            "AWS gave no instance. Tried: ml.g6.2xlarge (on demand) once, ml.g5.2xlarge (on demand) 2 times.",
            "SageMaker found no instance",
        ),
        manifest={"instance_types": [FIRST, SECOND]},
    ),
    Scenario(
        "instance-late",
        "SageMaker finds an instance within the time that it is waited for",
        (Fault("job", (), {"pending": 8}),),
    ),
    Scenario(
        "quota-zero",
        "the account's quota is zero for every instance type of the ladder",
        tuple(_no_quota(name) for name in (FIRST, SECOND)),
        FAILED,
        rungs=2,
        says=tuple(f"'{name} for training job usage'" for name in (FIRST, SECOND)),
        manifest={"instance_types": [FIRST, SECOND]},
    ),
    Scenario(
        "quota-zero-of-the-first",
        "the account's quota is zero for the first instance type of the ladder",
        (_no_quota(FIRST),),
        rungs=2,
        manifest={"instance_types": [FIRST, SECOND]},
    ),
    Scenario(
        "quota-in-use",
        "another job uses the account's quota for longer than a rung is tried",
        (Fault("job-request", (), {"code": "ResourceLimitExceeded", "message": QUOTA_IN_USE}, 0, 3),),
    ),
    Scenario(
        "long-encoding",
        "the first step takes longer than StallSeconds, but not twice as long as is quoted",
        (Fault("container", (), {"seconds": SECONDS_TO_ACT}),),
        act=_while_held(_let_time_pass),
        files=120,
        manifest={"config": {**QUICK, "resolution": "1024,1024"}},
    ),
    Scenario(
        "no-first-step",
        "the first step does not come in twice the time that is quoted",
        (Fault("container", (), {"seconds": SECONDS_TO_ACT}),),
        STOPPED,
        _let_time_pass,
        says=("made no first step",),
    ),
    Scenario(
        "cloudwatch-takes-nothing",
        "CloudWatch takes in nothing of the job for longer than StallSeconds",
        (
            Fault("container", (), {"seconds": SECONDS_TO_ACT}),
            call("monitoring:PutMetricData", times=FOR_GOOD, code="InternalServiceFault", status=500),
        ),
        act=_while_held(_see_nothing_for_long),
    ),
    Scenario(
        "empty-handed", "the job succeeds without a model", (Fault("job", (), {"complete": True}),), FAILED
    ),
    Scenario(
        "max-runtime",
        "the job is stopped by its time limit",
        (Fault("job", (), {"stop": "MaxRuntimeExceeded"}),),
        STOPPED,
        says=("reached its time limit",),
    ),
    Scenario(
        "max-wait",
        "there is no spot instance within the time that the job may wait for one",
        (Fault("job", ('"EnableManagedSpotTraining": true',), {"stop": "MaxWaitTimeExceeded"}),),
        rungs=2,
        manifest={"spot": True},
    ),
    Scenario(
        "status-unknown",
        "SageMaker reports a status that this version does not know",
        (
            call(
                "sagemaker:DescribePipelineExecution",
                "WatchTraining",
                times=FOR_GOOD,
                answer={"PipelineExecutionStatus": "Suspended"},
            ),
        ),
        FAILED,
        says=("the status Suspended, which this version does not know",),
        manifest=LONG,
    ),
    Scenario(
        "job-stopped",
        "a person stops the training job",
        (),
        STOPPED,
        _stop_the_job,
        manifest=LONG,
    ),
    Scenario(
        "pipeline-stopped",
        "a person stops the pipeline execution",
        (),
        STOPPED,
        _stop_the_pipeline,
        says=("by a person",),
        manifest=LONG,
    ),
    # Events
    Scenario("events-lost", "every event of SageMaker is lost", (event("aws.sagemaker", drop=True),)),
    Scenario(
        "events-repeated", "every event of SageMaker comes three times", (event("aws.sagemaker", copies=3),)
    ),
    Scenario(
        "events-late", "every event of SageMaker is four seconds late", (event("aws.sagemaker", seconds=4),)
    ),
    Scenario(
        "events-reordered",
        "what says Executing comes after what says Succeeded",
        (event("Execution Status Change", '"currentPipelineExecutionStatus": "Executing"', seconds=6),),
    ),
    Scenario(
        "drop-repeated",
        "the event of the dropped manifest comes three times",
        (event("Object Created", "manifest.json", copies=3),),
    ),
    Scenario(
        "drop-late",
        "the event of the dropped manifest is late",
        (event("Object Created", "manifest.json", seconds=3),),
    ),
    # The flow
    Scenario(
        "aborted-inspecting",
        "the flow is aborted while it inspects",
        (held("InspectShard"),),
        STOPPED,
        _while_held(_abort_at("INSPECTING")),
    ),
    Scenario(
        "aborted-planned",
        "the flow is aborted after the plan",
        (held("ResolveImage"),),
        STOPPED,
        _while_held(_abort_at("PLANNED")),
    ),
    Scenario(
        "aborted-training", "the flow is aborted in training", (), STOPPED, _abort_in_training, manifest=LONG
    ),
    Scenario(
        "aborted-starting",
        "the flow is aborted right after the pipeline was started",
        (held("WatchTraining"),),  # so that the record does not know the pipeline execution yet
        STOPPED,
        _while_held(Scene.abort),
        manifest=LONG,
    ),
    Scenario(
        "aborted-waiting-for-upload",
        "the flow is aborted while it waits for the upload",
        (),
        STOPPED,
        _abort_at("WAITING_FOR_UPLOAD"),
        manifest={"images": 99},
    ),
    Scenario(
        "aborted-waiting-for-capacity",
        "the flow is aborted while it waits for capacity",
        (Fault("job", (), NO_CAPACITY, 0, FOR_GOOD),),
        STOPPED,
        _abort_at("WAITING_FOR_CAPACITY"),
    ),
    Scenario(
        "flow-times-out",
        "the state machine reaches its time limit in training",
        (Fault("execution", (), {"limit": 12}),),
        FAILED,
        says=("out of time",),
        manifest=LONG,
    ),
    Scenario(
        "aborted-verifying",
        "the flow is aborted while the model is proved",
        (call("s3:GET", "VerifyModel", seconds=LONGEST_HOLD),),
        STOPPED,
        _while_held(_abort_at("VERIFYING")),
    ),
    Scenario(
        "abort-unheard",
        "the event of the aborted flow is lost; the schedule finds the run",
        (event("aws.states", "ABORTED", drop=True),),
        STOPPED,
        _abort_unheard,
        manifest=LONG,
    ),
    # Clocks
    Scenario(
        "clock-fast",
        "the clock of every Lambda is four minutes fast",
        (clock(240),),
    ),
    Scenario(
        "clock-slow",
        "the clock of every Lambda is ten seconds slow",
        (clock(-10),),
    ),
)
