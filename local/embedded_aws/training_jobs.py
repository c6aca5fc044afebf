"""SageMaker's training jobs: the operations of the API, and the start of each job's thread."""

import json
import shutil
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError
from ministack.core.responses import AccountRegionScopedDict

from local.embedded_aws import training_storage
from local.embedded_aws.faults import FAULTS
from local.embedded_aws.image_format import parse_reference
from local.embedded_aws.registration import in_background, run_at_shutdown
from local.embedded_aws.request_validation import RequestError
from local.embedded_aws.role_clients import RoleClients, may_assume
from local.embedded_aws.settings import settings
from local.embedded_aws.training_job import ENDED, TrainingJob
from local.embedded_aws.training_request import check_training_request
from local.embedded_aws.training_run import TrainingRun, remove_roots

Request = Mapping[str, Any]
Answer = dict[str, Any]

_jobs = AccountRegionScopedDict()


def install() -> None:
    # What a server that was killed has left; nothing runs yet.
    shutil.rmtree(settings().training, ignore_errors=True)
    run_at_shutdown(remove_roots)


def create_training_job(request: Request) -> Answer:
    job = start_training_job(request)
    return {"TrainingJobArn": job.arn}


def start_training_job(request: Request) -> TrainingJob:
    """Check the request as SageMaker does and start the job's thread."""
    check_training_request(request)
    if fault := FAULTS.strike("job-request", lambda: json.dumps(request, default=str)):
        raise RequestError(fault["code"], fault["message"])
    name, role = request["TrainingJobName"], request["RoleArn"]
    if name in _jobs:
        raise RequestError(
            "ResourceInUse", f"Training job names must be unique within an AWS account and region: {name}"
        )
    if not may_assume(role, "sagemaker.amazonaws.com"):
        raise RequestError(
            "ValidationException",
            f"Could not assume role {role}. Please ensure that the role exists and allows principal "
            "'sagemaker.amazonaws.com' to assume the role.",
        )
    image = request["AlgorithmSpecification"]["TrainingImage"]
    if parse_reference(image) is None:
        raise RequestError("ValidationException", f"The training image {image} is not in Amazon ECR.")
    _check_prefixes(request)
    job = _jobs[name] = TrainingJob(request)
    in_background(lambda: TrainingRun(job).run())
    return job


def _check_prefixes(request: Request) -> None:
    """Refuse a channel over an empty prefix. What the role may not list is found out by the job itself."""
    s3 = RoleClients(request["RoleArn"], "SageMaker").client("s3")
    for channel in request.get("InputDataConfig") or []:
        address = channel["DataSource"]["S3DataSource"]["S3Uri"]
        try:
            found = training_storage.has_objects(s3, address)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchBucket":
                continue
            found = False
        if not found:
            bucket, _ = training_storage.split_address(address)
            raise RequestError(
                "ValidationException",
                f'No S3 objects found under S3 URL "{address}" given in input data source. Please ensure '
                "that the bucket exists in the selected region, that objects exist under that S3 prefix, and "
                f'that the role "{request["RoleArn"]}" has "s3:ListBucket" permissions on bucket "{bucket}".',
            )


def find_job(name: str) -> TrainingJob:
    if name not in _jobs:
        raise RequestError("ValidationException", "Requested resource not found.")
    job: TrainingJob = _jobs[name]
    return job


def describe_training_job(request: Request) -> Answer:
    return find_job(request["TrainingJobName"]).describe()


def stop_training_job(request: Request) -> Answer:
    job = find_job(request["TrainingJobName"])
    if job.status in ENDED:
        raise RequestError(
            "ValidationException", "The request was rejected because the training job has ended."
        )
    job.stop_requested.set()
    return {}


def list_training_jobs(request: Request) -> Answer:
    described = [job.describe() for job in _jobs.values()]
    fitting = [
        job
        for job in described
        if request.get("NameContains", "") in job["TrainingJobName"]
        and request.get("StatusEquals", job["TrainingJobStatus"]) == job["TrainingJobStatus"]
    ]
    sort_keys = {"Name": "TrainingJobName", "Status": "TrainingJobStatus", "CreationTime": "CreationTime"}
    sort_key = sort_keys[request.get("SortBy", "CreationTime")]
    fitting.sort(
        key=lambda job: job[sort_key], reverse=request.get("SortOrder", "Descending") == "Descending"
    )
    members = (
        "TrainingJobName",
        "TrainingJobArn",
        "CreationTime",
        "TrainingEndTime",
        "LastModifiedTime",
        "TrainingJobStatus",
        "SecondaryStatus",
    )
    page, token = paged(fitting, request)
    summaries = [{name: job[name] for name in members if name in job} for job in page]
    return {"TrainingJobSummaries": summaries, **token}


def interrupt_training_job(request: Request) -> Answer:
    """Not of AWS: reclaim the spot instance of a job that trains on one."""
    job = find_job(request["TrainingJobName"])
    if not job.request.get("EnableManagedSpotTraining"):
        raise RequestError("ValidationException", f"{job.name} does not run on a spot instance.")
    job.interruption_requested.set()
    return {}


def paged(items: list[Any], request: Request) -> tuple[list[Any], dict[str, str]]:
    """One page of `items` by NextToken and MaxResults, and the members that lead to the next."""
    first, size = int(request.get("NextToken") or 0), int(request.get("MaxResults") or 100)
    token = {"NextToken": str(first + size)} if first + size < len(items) else {}
    return items[first : first + size], token


OPERATIONS = {
    "CreateTrainingJob": create_training_job,
    "DescribeTrainingJob": describe_training_job,
    "ListTrainingJobs": list_training_jobs,
    "StopTrainingJob": stop_training_job,
    "EmbeddedInterruptTrainingJob": interrupt_training_job,
}
