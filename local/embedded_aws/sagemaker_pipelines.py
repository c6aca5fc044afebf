"""SageMaker's pipelines: the operations of the API. Definitions and runs have modules of their own."""

import json
import random
import string
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from ministack.core.responses import AccountRegionScopedDict
from ministack.services import s3

from local.embedded_aws import training_jobs
from local.embedded_aws.checked_operation import checked
from local.embedded_aws.cloudformation import register_resource_type
from local.embedded_aws.pipeline_definition import bind, parse
from local.embedded_aws.pipeline_execution import PipelineExecution, run_condition, run_fail
from local.embedded_aws.pipeline_training_step import run_training
from local.embedded_aws.registration import (
    Operation,
    arn,
    in_background,
    register_json_service,
    register_resource_arn,
)
from local.embedded_aws.request_validation import RequestError
from local.embedded_aws.role_clients import may_assume
from local.embedded_aws.training_jobs import Answer, Request, find_job, paged

RUNNERS = {"Training": run_training, "Condition": run_condition, "Fail": run_fail}
ENDED = ("Succeeded", "Failed", "Stopped")

_pipelines = AccountRegionScopedDict()
_executions = AccountRegionScopedDict()
_tokens = AccountRegionScopedDict()
_tags = AccountRegionScopedDict()
_starting = threading.Lock()


def install() -> None:
    operations = {name: with_token(name, checked("sagemaker", name, do)) for name, do in OPERATIONS.items()}
    register_json_service("sagemaker", "SageMaker", operations)
    register_resource_arn("sagemaker", resource_arn)
    register_resource_type(
        "AWS::SageMaker::Pipeline",
        provision,
        update_provisioned,
        lambda name, properties: _pipelines.pop(name, None),
    )


def with_token(name: str, operation: Operation) -> Operation:
    """Fill the idempotency token in, as the SDKs do: services that call for a rule or a state do not."""
    if name not in ("StartPipelineExecution", "StopPipelineExecution", "CreatePipeline"):
        return operation
    return lambda request: operation({"ClientRequestToken": str(uuid.uuid4()), **request})


def resource_arn(operation: str, request: Request) -> str:
    """What IAM judges a caller on."""
    if execution := request.get("PipelineExecutionArn"):
        return str(execution)
    if pipeline := request.get("PipelineName"):
        return arn("sagemaker", f"pipeline/{str(pipeline).rpartition('/')[2]}")
    if job := request.get("TrainingJobName"):
        return arn("sagemaker", f"training-job/{job}")
    return str(request.get("ResourceArn", "*"))


# Pipelines


def create_pipeline(request: Request) -> Answer:
    name = request["PipelineName"]
    if name in _pipelines:
        raise RequestError(
            "ValidationException", f"Pipeline names must be unique within an AWS account and region: {name}"
        )
    text = _definition(request)
    parse(text)
    _check_role(request["RoleArn"])
    now = time.time()
    pipeline_arn = arn("sagemaker", f"pipeline/{name}")
    _pipelines[name] = {
        "PipelineArn": pipeline_arn,
        "PipelineName": name,
        "PipelineDisplayName": request.get("PipelineDisplayName", name),
        "PipelineDefinition": text,
        "PipelineDescription": request.get("PipelineDescription", ""),
        "RoleArn": request["RoleArn"],
        "PipelineStatus": "Active",
        "CreationTime": now,
        "LastModifiedTime": now,
    }
    _tags[name] = {tag["Key"]: tag["Value"] for tag in request.get("Tags") or []}
    return {"PipelineArn": pipeline_arn}


def update_pipeline(request: Request) -> Answer:
    """Running executions keep the definition that they were started with."""
    pipeline = _pipeline(request["PipelineName"])
    members = {
        name: request[name]
        for name in ("PipelineDisplayName", "PipelineDescription", "RoleArn")
        if name in request
    }
    if "PipelineDefinition" in request or "PipelineDefinitionS3Location" in request:
        members["PipelineDefinition"] = _definition(request)
        parse(members["PipelineDefinition"])
    if "RoleArn" in members:
        _check_role(members["RoleArn"])
    pipeline.update(members, LastModifiedTime=time.time())
    return {"PipelineArn": pipeline["PipelineArn"]}


def describe_pipeline(request: Request) -> Answer:
    return dict(_pipeline(request["PipelineName"]))


def delete_pipeline(request: Request) -> Answer:
    pipeline = _pipelines.pop(_pipeline(request["PipelineName"])["PipelineName"])
    return {"PipelineArn": pipeline["PipelineArn"]}


def list_pipelines(request: Request) -> Answer:
    members = ("PipelineArn", "PipelineName", "RoleArn", "CreationTime", "LastModifiedTime")
    named = [
        item
        for item in _pipelines.values()
        if item["PipelineName"].startswith(request.get("PipelineNamePrefix", ""))
    ]
    named.sort(
        key=lambda item: item["CreationTime"], reverse=request.get("SortOrder", "Descending") == "Descending"
    )
    page, token = paged(named, request)
    return {"PipelineSummaries": [{name: item[name] for name in members} for item in page], **token}


def _pipeline(name_or_arn: str) -> dict[str, Any]:
    name = name_or_arn.rpartition("/")[2]
    if name not in _pipelines:
        raise RequestError("ResourceNotFound", f"Pipeline '{name_or_arn}' does not exist.")
    pipeline: dict[str, Any] = _pipelines[name]
    return pipeline


def _definition(request: Request) -> str:
    if "PipelineDefinition" in request:
        return str(request["PipelineDefinition"])
    location = request.get("PipelineDefinitionS3Location")
    if not location:
        raise RequestError(
            "ValidationException", "Either PipelineDefinition or PipelineDefinitionS3Location is required."
        )
    body = s3._get_object_data(location["Bucket"], location["ObjectKey"], location.get("VersionId"))
    if body is None:
        raise RequestError("ValidationException", f"The pipeline definition {location} does not exist.")
    return str(body.decode())


def _check_role(role: str) -> None:
    if not may_assume(role, "sagemaker.amazonaws.com"):
        raise RequestError(
            "ValidationException", f"Could not assume role {role}: it does not trust sagemaker.amazonaws.com."
        )


# Executions


def start_pipeline_execution(request: Request) -> Answer:
    pipeline = _pipeline(request["PipelineName"])
    definition = parse(pipeline["PipelineDefinition"])
    parameters = bind(definition, request.get("PipelineParameters") or [])
    token = (pipeline["PipelineName"], request["ClientRequestToken"])
    with _starting:  # the same token twice is the same intent, whichever request comes first
        if token in _tokens:
            return {"PipelineExecutionArn": _tokens[token]}
        identifier = "".join(random.choices(string.ascii_lowercase + string.digits, k=12))
        display = {
            name: request[name]
            for name in ("PipelineExecutionDisplayName", "PipelineExecutionDescription")
            if name in request
        }
        execution = PipelineExecution(pipeline, definition, parameters, identifier, display)
        _executions[execution.arn] = execution
        _tokens[token] = execution.arn
    pipeline["LastRunTime"] = time.time()
    execution.move("Executing")
    in_background(execution.run, RUNNERS)
    return {"PipelineExecutionArn": execution.arn}


def describe_pipeline_execution(request: Request) -> Answer:
    return dict(_execution(request).description)


def list_pipeline_executions(request: Request) -> Answer:
    pipeline_arn = _pipeline(request["PipelineName"])["PipelineArn"]
    found = [item for item in _executions.values() if item.pipeline_arn == pipeline_arn]
    found.sort(
        key=lambda item: item.description["CreationTime"],
        reverse=request.get("SortOrder", "Descending") == "Descending",
    )
    page, token = paged(found, request)
    summaries = [
        {
            "PipelineExecutionArn": item.arn,
            "StartTime": item.description["CreationTime"],
            "PipelineExecutionStatus": item.status,
            "PipelineExecutionDisplayName": item.description["PipelineExecutionDisplayName"],
        }
        for item in page
    ]
    return {"PipelineExecutionSummaries": summaries, **token}


def list_pipeline_execution_steps(request: Request) -> Answer:
    steps = [dict(step) for step in _execution(request).steps.values()]
    steps.sort(key=lambda step: step["StartTime"], reverse=request.get("SortOrder") == "Descending")
    page, token = paged(steps, request)
    return {"PipelineExecutionSteps": page, **token}


def list_pipeline_parameters_for_execution(request: Request) -> Answer:
    parameters = [
        {"Name": name, "Value": str(value)} for name, value in _execution(request).parameters.items()
    ]
    page, token = paged(parameters, request)
    return {"PipelineParameters": page, **token}


def describe_pipeline_definition_for_execution(request: Request) -> Answer:
    execution = _execution(request)
    definition = {
        "Version": "2020-12-01",
        "Parameters": list(execution.definition.parameters.values()),
        "Steps": [execution.definition.steps[name] for name in execution.definition.outer],
    }
    return {
        "PipelineDefinition": json.dumps(definition),
        "CreationTime": execution.description["CreationTime"],
    }


def stop_pipeline_execution(request: Request) -> Answer:
    """Stops the training job as well. A second call, or one that is too late, changes nothing."""
    execution = _execution(request)
    if execution.status in ENDED:
        raise RequestError(
            "ConflictException",
            f"Pipeline execution with status {execution.status} cannot be stopped: {execution.arn}",
        )
    if not execution.stop_requested.is_set():
        execution.stop_requested.set()
        execution.move("Stopping")
    return {"PipelineExecutionArn": execution.arn}


def _execution(request: Request) -> PipelineExecution:
    name = request.get("PipelineExecutionArn", "")
    if name not in _executions:
        raise RequestError("ResourceNotFound", f"Pipeline execution '{name}' does not exist.")
    execution: PipelineExecution = _executions[name]
    return execution


# Tags


def _tags_of(resource: str) -> dict[str, str]:
    kind, _, name = resource.rpartition(":")[2].partition("/")
    if kind == "training-job":
        return find_job(name).tags
    tags: dict[str, str] = _tags[_pipeline(name)["PipelineName"]]
    return tags


def add_tags(request: Request) -> Answer:
    tags = _tags_of(request["ResourceArn"])
    tags.update({tag["Key"]: tag["Value"] for tag in request["Tags"]})
    return list_tags(request)


def list_tags(request: Request) -> Answer:
    return {"Tags": [{"Key": key, "Value": value} for key, value in _tags_of(request["ResourceArn"]).items()]}


# CloudFormation


def provision(logical_id: str, properties: Mapping[str, Any], stack: str) -> tuple[str, dict[str, str]]:
    """AWS::SageMaker::Pipeline: its name is its Ref; it has no attributes."""
    create_pipeline(_from_template(properties))
    return properties["PipelineName"], {}


def update_provisioned(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], stack: str
) -> tuple[str, dict[str, str]]:
    if new["PipelineName"] != name:  # a replacement: CloudFormation deletes the old one afterwards
        return provision("", new, stack)
    update_pipeline({key: value for key, value in _from_template(new).items() if key != "Tags"})
    return name, {}


def _from_template(properties: Mapping[str, Any]) -> dict[str, Any]:
    definition = properties["PipelineDefinition"]
    request = {
        name: properties[name]
        for name in ("PipelineName", "PipelineDisplayName", "PipelineDescription", "RoleArn", "Tags")
        if name in properties
    }
    if "PipelineDefinitionBody" in definition:
        body = definition["PipelineDefinitionBody"]
        request["PipelineDefinition"] = body if isinstance(body, str) else json.dumps(body)
    else:
        location = definition["PipelineDefinitionS3Location"]
        request["PipelineDefinitionS3Location"] = {"Bucket": location["Bucket"], "ObjectKey": location["Key"]}
    return request


OPERATIONS: dict[str, Callable[[Request], Answer]] = {
    "CreatePipeline": create_pipeline,
    "UpdatePipeline": update_pipeline,
    "DescribePipeline": describe_pipeline,
    "DeletePipeline": delete_pipeline,
    "ListPipelines": list_pipelines,
    "StartPipelineExecution": start_pipeline_execution,
    "DescribePipelineExecution": describe_pipeline_execution,
    "DescribePipelineDefinitionForExecution": describe_pipeline_definition_for_execution,
    "ListPipelineExecutions": list_pipeline_executions,
    "ListPipelineExecutionSteps": list_pipeline_execution_steps,
    "ListPipelineParametersForExecution": list_pipeline_parameters_for_execution,
    "StopPipelineExecution": stop_pipeline_execution,
    "AddTags": add_tags,
    "ListTags": list_tags,
    **training_jobs.OPERATIONS,
}
