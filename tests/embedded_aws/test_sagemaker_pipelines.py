"""Pipelines: the API, executions with their steps and events, permissions, retries, stop."""

import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from tests.embedded_aws.running import ACCOUNT, REGION, RunningEmbeddedAws, allow, wait_for
from tests.embedded_aws.setting_faults import Fault, faults
from tests.embedded_aws.test_sagemaker_training_jobs import PYTHON_TRAIN, SLEEPING_TRAIN
from tests.embedded_aws.training import Training

JOBS = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/pipelines-*"


class Pipeline:
    """One pipeline: refused below a volume of 50, else one training step."""

    def __init__(self, training: Training, image: str, **step: Any) -> None:
        self.training, self.name, self.sagemaker = training, training.name, training.sagemaker
        arguments = training.request("x", image)
        del arguments["TrainingJobName"]
        arguments["ResourceConfig"]["VolumeSizeInGB"] = {"Get": "Parameters.Volume"}
        arguments["HyperParameters"] = {"run_id": {"Get": "Parameters.RunId"}}
        arguments["CheckpointConfig"] = {
            "S3Uri": {
                "Std:Join": {
                    "On": "/",
                    "Values": [
                        f"s3://{training.bucket}/checkpoints",
                        {"Get": "Execution.PipelineExecutionId"},
                        "",
                    ],
                }
            }
        }
        self.definition = {
            "Version": "2020-12-01",
            "Parameters": [
                {"Name": "Volume", "Type": "Integer", "DefaultValue": 50},
                {"Name": "RunId", "Type": "String", "DefaultValue": "by-hand"},
            ],
            "Steps": [
                self._condition(
                    "RefuseSmall",
                    "LessThan",
                    {"Name": "TooSmall", "Type": "Fail", "Arguments": {"ErrorMessage": "at least 50"}},
                ),
                self._condition(
                    "WhenLarge",
                    "GreaterThanOrEqualTo",
                    {"Name": "Train", "Type": "Training", "Arguments": arguments, **step},
                ),
            ],
        }
        self.role = training.aws.create_role(
            f"pipeline-{self.name}", "sagemaker.amazonaws.com", *self.permissions()
        )

    def _condition(self, name: str, kind: str, step: dict[str, Any]) -> dict[str, Any]:
        comparison = {"Type": kind, "LeftValue": {"Get": "Parameters.Volume"}, "RightValue": 50}
        return {
            "Name": name,
            "Type": "Condition",
            "Arguments": {"Conditions": [comparison], "IfSteps": [step], "ElseSteps": []},
        }

    def permissions(self, without: str = "") -> list[dict[str, Any]]:
        jobs = [
            "sagemaker:CreateTrainingJob",
            "sagemaker:DescribeTrainingJob",
            "sagemaker:StopTrainingJob",
            "sagemaker:AddTags",
        ]
        statements = [allow(action, JOBS) for action in jobs if action != without]
        if without != "iam:PassRole":
            condition = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
            statements.append({**allow("iam:PassRole", self.training.role), "Condition": condition})
        return statements

    def create(self, role: str | None = None) -> None:
        self.sagemaker.create_pipeline(
            PipelineName=self.name, PipelineDefinition=json.dumps(self.definition), RoleArn=role or self.role
        )

    def start(self, **parameters: str) -> str:
        given = [{"Name": name, "Value": value} for name, value in parameters.items()]
        answer = self.sagemaker.start_pipeline_execution(PipelineName=self.name, PipelineParameters=given)
        return str(answer["PipelineExecutionArn"])

    def ended(self, execution: str) -> dict[str, Any]:
        def description() -> dict[str, Any] | None:
            found = self.sagemaker.describe_pipeline_execution(PipelineExecutionArn=execution)
            return found if found["PipelineExecutionStatus"] in ("Succeeded", "Failed", "Stopped") else None

        found: dict[str, Any] = wait_for(description)
        return found

    def steps(self, execution: str) -> dict[str, dict[str, Any]]:
        found = self.sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution)[
            "PipelineExecutionSteps"
        ]
        return {step["StepName"]: step for step in found}


@pytest.fixture
def pipeline(aws: RunningEmbeddedAws, unique: str, tmp_path: Path) -> Pipeline:
    training = Training(aws, unique)
    training.put("data/a.jpg")
    return Pipeline(training, training.image(PYTHON_TRAIN, tmp_path))


def test_an_execution_runs_its_training_step(pipeline: Pipeline) -> None:
    executions = pipeline.training.events("SageMaker Model Building Pipeline Execution Status Change")
    steps = pipeline.training.events("SageMaker Model Building Pipeline Execution Step Status Change")
    pipeline.create()

    execution = pipeline.start(RunId="r1")

    assert pipeline.ended(execution)["PipelineExecutionStatus"] == "Succeeded"
    found = pipeline.steps(execution)
    assert {name: step["StepStatus"] for name, step in found.items()} == {
        "RefuseSmall": "Succeeded",
        "WhenLarge": "Succeeded",
        "Train": "Succeeded",
    }
    assert found["RefuseSmall"]["Metadata"] == {"Condition": {"Outcome": "False"}}
    assert found["WhenLarge"]["Metadata"] == {"Condition": {"Outcome": "True"}}
    job = found["Train"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
    identifier = execution.rpartition("/")[2]
    assert re.fullmatch(f"pipelines-{identifier}-Train-[A-Za-z0-9]{{10}}", job)
    described = pipeline.training.describe(job)
    assert described["HyperParameters"] == {"run_id": "r1"}
    assert described["ResourceConfig"]["VolumeSizeInGB"] == 50
    assert described["CheckpointConfig"]["S3Uri"].endswith(f"/checkpoints/{identifier}/")
    ended = wait_for(
        lambda: executions.where(pipelineExecutionArn=execution, currentPipelineExecutionStatus="Succeeded")
    )[0]
    assert ended["previousPipelineExecutionStatus"] == "Executing"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", ended["executionEndTime"])
    trained = wait_for(
        lambda: steps.where(pipelineExecutionArn=execution, stepName="Train", currentStepStatus="Succeeded")
    )[0]
    assert trained["stepType"] == "Training"
    assert trained["metadata"] == {"trainingJob": {"arn": found["Train"]["Metadata"]["TrainingJob"]["Arn"]}}


def test_a_volume_that_is_too_small_ends_in_the_fail_step(pipeline: Pipeline) -> None:
    pipeline.create()

    execution = pipeline.start(Volume="49")

    described = pipeline.ended(execution)
    assert described["PipelineExecutionStatus"] == "Failed"
    assert described["FailureReason"] == "Step failure: One or multiple steps failed."
    steps = pipeline.steps(execution)
    assert steps["TooSmall"]["FailureReason"] == "at least 50"
    assert steps["TooSmall"]["Metadata"] == {"Fail": {"ErrorMessage": "at least 50"}}
    assert "Train" not in steps


def test_what_the_job_refuses_fails_the_step(pipeline: Pipeline) -> None:
    pipeline.training.aws.client("s3").delete_object(Bucket=pipeline.training.bucket, Key="data/a.jpg")
    pipeline.create()

    execution = pipeline.start()

    assert pipeline.ended(execution)["PipelineExecutionStatus"] == "Failed"
    reason = pipeline.steps(execution)["Train"]["FailureReason"]
    assert reason.startswith(
        "ClientError: Failed to invoke sagemaker:CreateTrainingJob. Error Details: No S3 objects"
    )


@pytest.mark.parametrize("action", ["sagemaker:CreateTrainingJob", "sagemaker:AddTags", "iam:PassRole"])
def test_a_permission_that_the_pipelines_role_lacks_fails_the_step_by_name(
    pipeline: Pipeline, action: str
) -> None:
    role = pipeline.training.aws.create_role(
        f"less-{pipeline.name}", "sagemaker.amazonaws.com", *pipeline.permissions(without=action)
    )
    pipeline.create(role)

    execution = pipeline.start()

    pipeline.ended(execution)
    assert f"not authorized to perform: {action}" in pipeline.steps(execution)["Train"]["FailureReason"]
    assert pipeline.training.keys("out/") == []


def test_the_same_token_starts_one_execution(pipeline: Pipeline) -> None:
    pipeline.create()
    token = uuid.uuid4().hex

    def start(with_token: str) -> str:
        answer = pipeline.sagemaker.start_pipeline_execution(
            PipelineName=pipeline.name, ClientRequestToken=with_token
        )
        return str(answer["PipelineExecutionArn"])

    first = start(token)

    assert start(token) == first
    assert start(uuid.uuid4().hex) != first


@pytest.mark.parametrize("length", [31, 129])
def test_a_token_has_32_to_128_characters(pipeline: Pipeline, length: int) -> None:
    # boto3 checks the minimum itself; the step functions and rules of an account do not pass through boto3.
    pipeline.create()
    with pytest.raises((ClientError, ParamValidationError), match=r"length|128|32"):
        pipeline.sagemaker.start_pipeline_execution(
            PipelineName=pipeline.name, ClientRequestToken="t" * length
        )


def test_unknown_pipelines_executions_and_parameters_are_refused(pipeline: Pipeline) -> None:
    pipeline.create()

    def code(call: Any) -> str:
        with pytest.raises(ClientError) as refused:
            call()
        return str(refused.value.response["Error"]["Code"])

    missing = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/{pipeline.name}/execution/abcdefabcdef"
    assert code(lambda: pipeline.start(Ghost="1")) == "ValidationException"
    assert (
        code(lambda: pipeline.sagemaker.start_pipeline_execution(PipelineName="ghost")) == "ResourceNotFound"
    )
    assert code(lambda: pipeline.sagemaker.describe_pipeline(PipelineName="ghost")) == "ResourceNotFound"
    assert code(lambda: pipeline.steps(missing)) == "ResourceNotFound"
    assert code(pipeline.create) == "ValidationException"


def test_stopping_an_execution_stops_its_job(pipeline: Pipeline, tmp_path: Path) -> None:
    train = pipeline.definition["Steps"][1]["Arguments"]["IfSteps"][0]  # type: ignore[index]
    image = pipeline.training.image(SLEEPING_TRAIN, tmp_path / "sleeping", tag="two")
    train["Arguments"]["AlgorithmSpecification"]["TrainingImage"] = image
    pipeline.create()
    execution = pipeline.start()
    job = wait_for(lambda: pipeline.steps(execution).get("Train", {}).get("Metadata", {}).get("TrainingJob"))[
        "Arn"
    ]
    name = job.rpartition("/")[2]
    wait_for(lambda: pipeline.training.describe(name)["SecondaryStatus"] == "Training")

    pipeline.sagemaker.stop_pipeline_execution(PipelineExecutionArn=execution)
    pipeline.sagemaker.stop_pipeline_execution(PipelineExecutionArn=execution)

    assert pipeline.ended(execution)["PipelineExecutionStatus"] == "Stopped"
    assert pipeline.steps(execution)["Train"]["StepStatus"] == "Stopped"
    assert pipeline.training.describe(name)["TrainingJobStatus"] == "Stopped"
    with pytest.raises(ClientError) as refused:
        pipeline.sagemaker.stop_pipeline_execution(PipelineExecutionArn=execution)
    assert refused.value.response["Error"]["Code"] == "ConflictException"


@pytest.mark.parametrize(("attempts", "status"), [(2, "Succeeded"), (0, "Failed")])
def test_a_retry_policy_repeats_what_it_names(
    aws: RunningEmbeddedAws, unique: str, tmp_path: Path, attempts: int, status: str
) -> None:
    training = Training(aws, unique)
    training.put("data/a.jpg")
    retry = {
        "ExceptionType": ["SageMaker.CAPACITY_ERROR"],
        "IntervalSeconds": 1,
        "BackoffRate": 1.0,
        "MaxAttempts": attempts,
    }
    pipeline = Pipeline(training, training.image(PYTHON_TRAIN, tmp_path), RetryPolicies=[retry])
    pipeline.create()
    lack = {"fail": "CapacityError: Unable to provision requested ML compute capacity."}

    with faults(aws.endpoint, Fault("job", (training.bucket,), lack)):
        execution = pipeline.start()
        ended = pipeline.ended(execution)

    assert ended["PipelineExecutionStatus"] == status
    if status == "Failed":
        assert "CapacityError" in pipeline.steps(execution)["Train"]["FailureReason"]


def test_an_update_is_used_by_the_next_execution(pipeline: Pipeline) -> None:
    pipeline.create()
    definition = {**pipeline.definition, "Steps": [pipeline.definition["Steps"][0]]}

    pipeline.sagemaker.update_pipeline(PipelineName=pipeline.name, PipelineDefinition=json.dumps(definition))

    execution = pipeline.start()
    assert pipeline.ended(execution)["PipelineExecutionStatus"] == "Succeeded"
    assert set(pipeline.steps(execution)) == {"RefuseSmall"}
    stored = pipeline.sagemaker.describe_pipeline(PipelineName=pipeline.name)
    assert json.loads(stored["PipelineDefinition"]) == definition


def test_a_definition_may_lie_in_s3(pipeline: Pipeline) -> None:
    pipeline.training.put("definitions/one.json", json.dumps(pipeline.definition))

    pipeline.sagemaker.create_pipeline(
        PipelineName=pipeline.name,
        PipelineDefinitionS3Location={
            "Bucket": pipeline.training.bucket,
            "ObjectKey": "definitions/one.json",
        },
        RoleArn=pipeline.role,
    )

    assert pipeline.ended(pipeline.start(Volume="49"))["PipelineExecutionStatus"] == "Failed"


def test_a_caller_needs_permission_on_the_pipeline(pipeline: Pipeline) -> None:
    pipeline.create()
    arn = pipeline.sagemaker.describe_pipeline(PipelineName=pipeline.name)["PipelineArn"]
    iam = pipeline.training.aws.client("iam")
    user = f"user-{pipeline.name}"
    iam.create_user(UserName=user)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    caller = pipeline.training.aws.client(
        "sagemaker", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"]
    )

    with pytest.raises(ClientError, match="not authorized to perform: sagemaker:StartPipelineExecution"):
        caller.start_pipeline_execution(PipelineName=pipeline.name)
    policy = {"Version": "2012-10-17", "Statement": [allow("sagemaker:StartPipelineExecution", arn)]}
    iam.put_user_policy(UserName=user, PolicyName="start", PolicyDocument=json.dumps(policy))

    assert caller.start_pipeline_execution(PipelineName=pipeline.name)["PipelineExecutionArn"].startswith(arn)


def test_executions_parameters_and_tags_are_listed(pipeline: Pipeline) -> None:
    pipeline.create()
    first, second = pipeline.start(), pipeline.start(RunId="two")

    listed = pipeline.sagemaker.list_pipeline_executions(PipelineName=pipeline.name)[
        "PipelineExecutionSummaries"
    ]
    parameters = pipeline.sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=second)
    arn = pipeline.sagemaker.describe_pipeline(PipelineName=pipeline.name)["PipelineArn"]
    pipeline.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "project", "Value": "cats"}])

    assert [item["PipelineExecutionArn"] for item in listed] == [second, first]
    assert parameters["PipelineParameters"] == [
        {"Name": "Volume", "Value": "50"},
        {"Name": "RunId", "Value": "two"},
    ]
    assert pipeline.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "project", "Value": "cats"}]
    pipeline.ended(first), pipeline.ended(second)


def test_a_stack_makes_changes_and_removes_a_pipeline(pipeline: Pipeline) -> None:
    cloudformation = pipeline.training.aws.client("cloudformation")

    def template(volume: int) -> str:
        definition = json.dumps(
            {
                **pipeline.definition,
                "Parameters": [
                    {"Name": "Volume", "Type": "Integer", "DefaultValue": volume},
                    {"Name": "RunId", "Type": "String", "DefaultValue": "by-hand"},
                ],
            }
        )
        properties = {
            "PipelineName": pipeline.name,
            "RoleArn": pipeline.role,
            "PipelineDefinition": {"PipelineDefinitionBody": definition},
        }
        return json.dumps(
            {"Resources": {"P": {"Type": "AWS::SageMaker::Pipeline", "Properties": properties}}}
        )

    def settled(status: str) -> bool:
        found = cloudformation.describe_stacks(StackName=pipeline.name)["Stacks"][0]
        return bool(found["StackStatus"] == status)

    cloudformation.create_stack(StackName=pipeline.name, TemplateBody=template(49))
    wait_for(lambda: settled("CREATE_COMPLETE"))
    assert pipeline.ended(pipeline.start())["PipelineExecutionStatus"] == "Failed"
    cloudformation.update_stack(StackName=pipeline.name, TemplateBody=template(50))
    wait_for(lambda: settled("UPDATE_COMPLETE"))
    assert pipeline.ended(pipeline.start())["PipelineExecutionStatus"] == "Succeeded"
    cloudformation.delete_stack(StackName=pipeline.name)
    wait_for(lambda: pipeline.name not in str(pipeline.sagemaker.list_pipelines()["PipelineSummaries"]))
