"""Addresses of the console's pages; each shape was taken from what the console itself shows."""

from __future__ import annotations

import pytest

from fine_tuning import console

JOB = "pipelines-0123456789ab-TrainOnSpot-XyZ0123456"


def record(partition: str = "aws", region: str = "us-east-1", job: str | None = JOB) -> dict[str, object]:
    arn = f"arn:{partition}:states:{region}:111122223333:execution:kohya-ss-fine-tuning:cats-0123456789ab"
    return {"execution_arn": arn, "observation": {"training_job": job}}


@pytest.mark.parametrize(
    ("partition", "region", "host"),
    [
        ("aws", "eu-central-1", "https://eu-central-1.console.aws.amazon.com/"),
        ("aws-cn", "cn-northwest-1", "https://cn-northwest-1.console.amazonaws.cn/"),
        ("aws-us-gov", "us-gov-west-1", "https://us-gov-west-1.console.amazonaws-us-gov.com/"),
    ],
)
def test_every_page_is_in_the_console_of_its_partition_and_region(
    partition: str, region: str, host: str
) -> None:
    build = f"arn:{partition}:codebuild:{region}:111122223333:build/image:0e9d"
    links = [*console.of_run(record(partition, region)), *console.of_build(build)]
    assert len(links) == 4
    for link in links:
        assert link.address.startswith(host)
        assert f"region={region}" in link.address


def test_the_flow_the_job_and_its_log_have_a_page_each() -> None:
    flow, job, log = (link.address.partition("/home?region=us-east-1#") for link in console.of_run(record()))
    root = "https://us-east-1.console.aws.amazon.com"
    assert (flow[0], flow[2]) == (f"{root}/states", f"/v2/executions/details/{record()['execution_arn']}")
    assert (job[0], job[2]) == (f"{root}/sagemaker", f"/jobs/{JOB}")
    group = "logsV2:log-groups/log-group/$252Faws$252Fsagemaker$252FTrainingJobs"
    assert (log[0], log[2]) == (f"{root}/cloudwatch", f"{group}$3FlogStreamNameFilter$3D{JOB}")


def test_a_build_has_its_project_and_itself_in_its_address() -> None:
    (link,) = console.of_build("arn:aws:codebuild:us-east-1:111122223333:build/image-build:0e9d")
    assert link.address == (
        "https://us-east-1.console.aws.amazon.com/codesuite/codebuild/111122223333/projects/image-build/"
        "build/image-build%3A0e9d/log?region=us-east-1"
    )


@pytest.mark.parametrize("observed", [{}, {"observation": None}, {"observation": {"training_job": None}}])
def test_before_there_is_a_job_only_the_flow_has_a_page(observed: dict[str, object]) -> None:
    links = console.of_run({"execution_arn": record()["execution_arn"], **observed})
    assert len(links) == 1


@pytest.mark.parametrize(
    "arn",
    ["", "not an arn", "arn:aws-iso:states:us-iso-east-1:1:execution:m:e", "arn:aws:states::1:execution:m:e"],
)
def test_what_lies_in_no_console_that_is_known_has_no_link(arn: str) -> None:
    assert console.of_run({"execution_arn": arn, "observation": {"training_job": JOB}}) == ()
    assert console.of_build(arn.replace("states", "codebuild")) == ()
