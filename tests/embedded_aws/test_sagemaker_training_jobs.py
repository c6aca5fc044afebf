"""Training jobs: what SageMaker refuses, the life of a job, its files, its log and its end."""

import gzip
import io
import json
import os
import tarfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from local.embedded_aws import image_store
from local.embedded_aws.image_format import assemble, parse_reference
from local.embedded_aws.request_validation import RequestError
from local.embedded_aws.training_request import check_training_request
from tests.embedded_aws.running import ACCOUNT, REGION, RunningEmbeddedAws, wait_for
from tests.embedded_aws.training import Training

PYTHON_TRAIN = """#!/usr/bin/env python3
import json, os, pathlib
root = pathlib.Path(os.environ["TRAINING_ROOT"])
print("hyperparameters", json.loads((root / "input/config/hyperparameters.json").read_text()))
data = root / "input/data"
print("files", sorted(path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()))
for step in (1, 2, 3):
    print(f"progress step={step} total=3 loss={1 / step:.4f}", flush=True)
(root / "model/samples").mkdir()
(root / "model/lora.safetensors").write_text("weights")
(root / "model/samples/a.png").write_text("picture")
(root / "output/notes.txt").write_text("notes")
"""
SLEEPING_TRAIN = """#!/bin/sh
trap 'echo stopped by TERM; echo half > "$TRAINING_ROOT/model/lora.safetensors"; exit 0' TERM
echo running
i=0
while [ $i -lt 300 ]; do sleep 0.1; i=$((i+1)); done
"""


@pytest.fixture
def training(aws: RunningEmbeddedAws, unique: str) -> Training:
    made = Training(aws, unique)
    made.put("data/10_cat/a.jpg", "picture")
    made.put("data/manifest.json", "{}")
    return made


@pytest.fixture(scope="module")
def refusing(aws: RunningEmbeddedAws) -> Training:
    made = Training(aws, "refusals")
    made.put("data/a.jpg")
    return made


IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/images-refusals:none"


def times(**members: int) -> dict[str, Any]:
    return {"StoppingCondition": {"MaxRuntimeInSeconds": 60, **members}}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (times(MaxWaitTimeInSeconds=120), "only supported if EnableManagedSpotTraining"),
        (
            {"EnableManagedSpotTraining": True, **times(MaxWaitTimeInSeconds=59)},
            "greater than or equal to MaxRuntime",
        ),
        ({"EnableManagedSpotTraining": True, **times()}, "MaxWaitTimeInSeconds must be specified"),
        ({"HyperParameters": {"long": "x" * 257}}, "less than or equal to 256"),
        (
            {"ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 0}},
            "VolumeSizeInGB must be greater than 0",
        ),
        (
            {"ResourceConfig": {"InstanceType": "ml.imaginary", "InstanceCount": 1, "VolumeSizeInGB": 1}},
            "enum value set",
        ),
        ({"TrainingJobName": "no_underscores"}, "regular expression pattern"),
        ({"TrainingJobName": "x" * 64}, "less than or equal to 63"),
        (
            {
                "AlgorithmSpecification": {
                    "TrainingImage": IMAGE,
                    "TrainingInputMode": "File",
                    "MetricDefinitions": [{"Name": f"m{n}", "Regex": "x"} for n in range(41)],
                }
            },
            "less than or equal to 40",
        ),
        ({"RoleArn": "arn:aws:iam::000000000000:role/nobody"}, "Could not assume role"),
        (
            {"AlgorithmSpecification": {"TrainingImage": "busybox", "TrainingInputMode": "File"}},
            "not in Amazon ECR",
        ),
    ],
)
def test_a_request_that_sagemaker_refuses_is_refused(
    refusing: Training, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(ClientError) as refused:
        refusing.sagemaker.create_training_job(**refusing.request("refused", IMAGE, **more))

    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert says in refused.value.response["Error"]["Message"]


def test_a_hyperparameter_that_is_no_string_is_refused(refusing: Training) -> None:
    # boto3 refuses it itself; other callers, such as a pipeline, do not.
    with pytest.raises(RequestError, match="HyperParameters"):
        check_training_request(refusing.request("refused", IMAGE, HyperParameters={"steps": 3}))


def test_two_instances_are_more_than_a_new_account_has(refusing: Training) -> None:
    resources = {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 1}

    with pytest.raises(ClientError) as refused:
        refusing.sagemaker.create_training_job(**refusing.request("refused", IMAGE, ResourceConfig=resources))

    assert refused.value.response["Error"]["Code"] == "ResourceLimitExceeded"


def test_a_channel_over_an_empty_prefix_is_refused(refusing: Training) -> None:
    request = refusing.request("refused", IMAGE, InputDataConfig=[refusing.channel("dataset", "nothing/")])

    with pytest.raises(ClientError, match="No S3 objects found under S3 URL") as refused:
        refusing.sagemaker.create_training_job(**request)

    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_a_job_that_does_not_exist_is_not_found(refusing: Training) -> None:
    with pytest.raises(ClientError, match="Requested resource not found"):
        refusing.describe("never-created")


def test_a_job_trains_and_leaves_plain_files(training: Training, tmp_path: Path) -> None:
    events = training.events("SageMaker Training Job State Change")
    image = training.image(PYTHON_TRAIN, tmp_path)
    metrics = [
        {"Name": "train:step", "Regex": "progress step=([0-9]+)"},
        {"Name": "train:loss", "Regex": " loss=([0-9.eE+-]+|nan|inf)"},
    ]
    algorithm = {"TrainingImage": image, "TrainingInputMode": "File", "MetricDefinitions": metrics}
    request = training.request(
        training.name, image, AlgorithmSpecification=algorithm, HyperParameters={"run_id": "r1"}
    )

    job = training.run(request)

    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert [item["Status"] for item in job["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    folder = f"out/{training.name}/output/"
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{training.bucket}/{folder}model/"
    assert training.keys("out/") == [
        f"{folder}model/lora.safetensors",
        f"{folder}model/samples/a.png",
        f"{folder}output/notes.txt",
    ]
    assert training.read(f"{folder}model/lora.safetensors") == b"weights"
    assert job["BillableTimeInSeconds"] >= 1
    assert job["TrainingEndTime"] >= job["TrainingStartTime"]
    assert {item["MetricName"]: round(item["Value"], 4) for item in job["FinalMetricDataList"]} == {
        "train:step": 3.0,
        "train:loss": 0.3333,
    }
    assert not (training.aws.home / "training" / training.name).exists()
    states = wait_for(
        lambda: (found := events.where(TrainingJobName=training.name)) and len(found) >= 5 and found
    )
    assert {state["TrainingJobStatus"] for state in states} == {"InProgress", "Completed"}
    completed = next(state for state in states if state["TrainingJobStatus"] == "Completed")
    assert completed["HyperParameters"] == {"run_id": "r1"}
    assert completed["TrainingEndTime"] > 1_600_000_000_000  # milliseconds


def test_a_key_with_a_doubled_slash_is_not_downloaded(training: Training, tmp_path: Path) -> None:
    training.put("data//b.jpg")
    job = training.run(training.request(training.name, training.image(PYTHON_TRAIN, tmp_path)))
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == (
        f"ClientError: Data download failed:Failed to download data. S3 key: s3://{training.bucket}/data//b.jpg has an "
        "illegal char sub-sequence '//' in it"
    )


def test_the_instance_tells_that_it_is_busy_whatever_the_container_says(
    training: Training, tmp_path: Path
) -> None:
    training.run(training.request(training.name, training.image(PYTHON_TRAIN, tmp_path)))
    now = time.time()
    statistics = training.aws.client("cloudwatch").get_metric_statistics(
        Namespace="/aws/sagemaker/TrainingJobs",
        MetricName="CPUUtilization",
        Dimensions=[{"Name": "Host", "Value": f"{training.name}/algo-1"}],
        StartTime=now - 300,
        EndTime=now + 300,
        Period=600,
        Statistics=["Average"],
    )
    assert [point["Average"] >= 0 for point in statistics["Datapoints"]] == [True]


def test_log_lines_and_metrics_reach_cloudwatch(training: Training, tmp_path: Path) -> None:
    image = training.image(PYTHON_TRAIN, tmp_path)
    definitions = [{"Name": "train:loss", "Regex": " loss=([0-9.]+)"}]
    algorithm = {"TrainingImage": image, "TrainingInputMode": "File", "MetricDefinitions": definitions}
    training.run(training.request(training.name, image, AlgorithmSpecification=algorithm))

    logs = training.aws.client("logs")
    streams = logs.describe_log_streams(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{training.name}/algo-1-"
    )["logStreams"]
    assert len(streams) == 1
    lines = logs.get_log_events(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamName=streams[0]["logStreamName"]
    )
    messages = [event["message"] for event in lines["events"]]
    assert "files ['dataset/10_cat/a.jpg', 'dataset/manifest.json']" in messages
    assert messages[-1] == "progress step=3 total=3 loss=0.3333"
    now = time.time()
    statistics = training.aws.client("cloudwatch").get_metric_statistics(
        Namespace="/aws/sagemaker/TrainingJobs",
        MetricName="train:loss",
        Dimensions=[{"Name": "TrainingJobName", "Value": training.name}],
        StartTime=now - 300,
        EndTime=now + 300,
        Period=600,
        Statistics=["SampleCount", "Maximum"],
    )["Datapoints"]
    assert sum(point["SampleCount"] for point in statistics) == 3
    assert max(point["Maximum"] for point in statistics) == 1.0


def test_a_second_job_of_one_name_is_refused(training: Training, tmp_path: Path) -> None:
    request = training.request(training.name, training.image(PYTHON_TRAIN, tmp_path))
    training.run(request)

    with pytest.raises(ClientError) as refused:
        training.sagemaker.create_training_job(**request)

    assert refused.value.response["Error"]["Code"] == "ResourceInUse"


def test_the_archive_is_the_default_output(training: Training, tmp_path: Path) -> None:
    output = {"S3OutputPath": f"s3://{training.bucket}/out"}
    request = training.request(training.name, training.image(PYTHON_TRAIN, tmp_path), OutputDataConfig=output)

    job = training.run(request)

    key = f"out/{training.name}/output/model.tar.gz"
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{training.bucket}/{key}"
    with tarfile.open(fileobj=io.BytesIO(training.read(key))) as archive:
        assert sorted(archive.getnames()) == ["lora.safetensors", "samples/a.png"]


def test_a_failure_tells_the_containers_cause_first(training: Training, tmp_path: Path) -> None:
    train = '#!/bin/sh\necho "The dataset has changed." > "$TRAINING_ROOT/output/failure"\nexit 3\n'

    job = training.run(training.request(training.name, training.image(train, tmp_path)))

    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: The dataset has changed., exit code: 3"
    assert "S3ModelArtifacts" not in job["ModelArtifacts"]


def test_a_long_failure_is_cut_after_1024_characters(training: Training, tmp_path: Path) -> None:
    train = '#!/bin/sh\nprintf "%02000d" 7 > "$TRAINING_ROOT/output/failure"\nexit 1\n'

    job = training.run(training.request(training.name, training.image(train, tmp_path)))

    assert len(job["FailureReason"]) == 1024
    assert job["FailureReason"].endswith(", exit code: 1")


def test_an_image_without_train_fails(training: Training, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    image = training.image("", tmp_path, dockerfile="FROM scratch\nCOPY other /other\n")

    job = training.run(training.request(training.name, image))

    assert 'exec: "train": executable file not found' in job["FailureReason"]


def test_a_missing_image_fails_the_job(training: Training) -> None:
    image = f"000000000000.dkr.ecr.us-east-1.amazonaws.com/{training.repository}:never"

    job = training.run(training.request(training.name, image))

    assert job["FailureReason"] == f"ClientError: {training.repository} has no image never"


@pytest.mark.parametrize(
    "action",
    [
        "s3:ListBucket",
        "s3:GetObject",
        "s3:PutObject",
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
        "ecr:GetAuthorizationToken",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    ],
)
def test_a_permission_that_the_role_lacks_fails_the_job_by_name(
    training: Training, tmp_path: Path, action: str
) -> None:
    image = training.image(PYTHON_TRAIN, tmp_path)
    role = training.aws.create_role(
        f"less-{training.name}", "sagemaker.amazonaws.com", *training.permissions(without=action)
    )

    job = training.run(training.request(training.name, image, RoleArn=role))

    assert job["TrainingJobStatus"] == "Failed"
    assert f"not authorized to perform: {action}" in job["FailureReason"]


def test_a_job_that_is_stopped_gets_term_and_keeps_its_model(training: Training, tmp_path: Path) -> None:
    request = training.request(training.name, training.image(SLEEPING_TRAIN, tmp_path))
    training.sagemaker.create_training_job(**request)
    wait_for(lambda: training.describe(training.name)["SecondaryStatus"] == "Training")
    wait_for(lambda: (training.aws.home / f"logs/training/{training.name}.log").read_text())

    training.sagemaker.stop_training_job(TrainingJobName=training.name)
    job = training.ended(training.name)

    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert training.read(f"out/{training.name}/output/model/lora.safetensors") == b"half\n"
    with pytest.raises(ClientError, match="has ended"):
        training.sagemaker.stop_training_job(TrainingJobName=training.name)


def test_the_time_limit_stops_a_job(training: Training, tmp_path: Path) -> None:
    image = training.image(SLEEPING_TRAIN, tmp_path)

    job = training.run(training.request(training.name, image, **times(MaxRuntimeInSeconds=1)))

    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


CHECKPOINTING_TRAIN = """#!/bin/sh
cd "$TRAINING_ROOT/checkpoints"
if [ -f state ]; then echo "resumed at $(cat state)"; echo done > ../model/lora; exit 0; fi
trap 'exit 143' TERM
echo 7 > state
i=0
while [ $i -lt 300 ]; do sleep 0.1; i=$((i+1)); done
"""


def test_an_interrupted_spot_job_begins_again_with_its_checkpoints(
    training: Training, tmp_path: Path
) -> None:
    request = training.request(
        training.name,
        training.image(CHECKPOINTING_TRAIN, tmp_path),
        EnableManagedSpotTraining=True,
        CheckpointConfig={"S3Uri": f"s3://{training.bucket}/checkpoints/r1/"},
        **times(MaxWaitTimeInSeconds=120),
    )
    training.sagemaker.create_training_job(**request)
    wait_for(lambda: "checkpoints/r1/state" in training.keys("checkpoints/"))

    embedded(training, "EmbeddedInterruptTrainingJob", TrainingJobName=training.name)
    job = training.ended(training.name)

    assert job["TrainingJobStatus"] == "Completed"
    statuses = [item["Status"] for item in job["SecondaryStatusTransitions"]]
    assert statuses[3:6] == ["Interrupted", "Starting", "Downloading"]
    assert "resumed at 7" in (training.aws.home / f"logs/training/{training.name}.log").read_text()


def test_jobs_are_listed_newest_first(training: Training, tmp_path: Path) -> None:
    image = training.image(PYTHON_TRAIN, tmp_path)
    for number in (1, 2):
        training.run(training.request(f"{training.name}-{number}", image))

    found = training.sagemaker.list_training_jobs(
        NameContains=training.name, StatusEquals="Completed", MaxResults=1
    )

    assert [job["TrainingJobName"] for job in found["TrainingJobSummaries"]] == [f"{training.name}-2"]
    rest = training.sagemaker.list_training_jobs(
        NameContains=training.name, StatusEquals="Completed", NextToken=found["NextToken"]
    )
    assert [job["TrainingJobName"] for job in rest["TrainingJobSummaries"]] == [f"{training.name}-1"]


def test_a_server_that_stops_ends_its_jobs_and_leaves_no_root(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    # TERM alone does not end it, so that its group must be killed.
    train = f"#!/bin/sh\ntrap '' TERM\necho $$ > {pid}\nwhile :; do sleep 0.1; done\n"
    home = tmp_path / "home"
    with RunningEmbeddedAws(home) as aws:
        training = Training(aws, "stopping")
        training.put("data/a.jpg")
        request = training.request("stopping", training.image(train, tmp_path / "image"))
        training.sagemaker.create_training_job(**request)
        wait_for(lambda: pid.exists() and pid.read_text())

    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert not (home / "training").exists()


def embedded(training: Training, operation: str, **request: Any) -> None:
    """Call an operation that AWS does not have."""
    headers = {"X-Amz-Target": f"SageMaker.{operation}", "Content-Type": "application/x-amz-json-1.1"}
    signed = AWSRequest("POST", training.aws.endpoint + "/", headers=headers, data=json.dumps(request))
    SigV4Auth(Credentials("test", "test"), "sagemaker", "us-east-1").add_auth(signed)
    call = urllib.request.Request(str(signed.url), json.dumps(request).encode(), dict(signed.headers))
    assert urllib.request.urlopen(call, timeout=10).status == 200


def log_of(aws: RunningEmbeddedAws, job: str) -> str:
    return (aws.home / "logs/training" / f"{job}.log").read_text()


def test_the_log_tells_what_ended_a_job_that_never_trained(
    aws: RunningEmbeddedAws, training: Training, unique: str
) -> None:
    registry = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{training.repository}"
    found = training.run(training.request(unique, f"{registry}:none"))
    assert found["TrainingJobStatus"] == "Failed"
    assert found["FailureReason"] in log_of(aws, unique)


def test_the_log_holds_the_exception_that_the_description_keeps_to_itself(
    aws: RunningEmbeddedAws, training: Training, unique: str
) -> None:
    registry = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{training.repository}"
    reference = parse_reference(f"{registry}:broken")
    assert reference is not None
    layer = gzip.compress(b"this is no tar archive" * 100, mtime=0)
    image_store.push(aws.client("ecr"), reference, assemble({}, [layer]))
    found = training.run(training.request(unique, f"{registry}:broken"))
    assert found["FailureReason"].startswith("InternalServerError")
    assert "Traceback" in log_of(aws, unique)
    assert "tarfile.ReadError" in log_of(aws, unique)
