"""The same drop once more: a run of its own that continues the first one's checkpoints."""

from __future__ import annotations

import json
import tomllib
from concurrent.futures import ThreadPoolExecutor

import plan_run
import pytest
import retry_run
import take_inventory
from inspect_shard import handler as inspect_shard

from fine_tuning import learning
from fine_tuning.aws import deployment
from fine_tuning.errors import NotRetriableError, RunUnknownError
from tests.functions_data import BUCKET, RUN, dropped, image_bytes
from tests.integration.functions.conftest import Stack
from tests.integration.functions.runs import planned


def over(stack: Stack, status: str, run_id: str = "cats-0123456789ab") -> str:
    run = planned(stack, run_id)
    deployment.deployment(None).records.advance(run["run_id"], status)
    return run_id


def retry(stack: Stack, run_id: str) -> str:
    answer = retry_run.handler({"run_id": run_id}, stack.context)
    return str(answer["run_id"])


@pytest.mark.parametrize("status", ["FAILED", "STOPPED"])
def test_given_a_run_without_a_model_then_it_runs_again_with_the_same_inputs(
    stack: Stack, status: str
) -> None:
    first = over(stack, status)

    assert retry(stack, first) == f"{first}-r2"

    record, before = stack.record(f"{first}-r2"), stack.record(first)
    assert (record["status"], record["retries"]) == ("RECEIVED", first)
    assert record["manifest_version"] == before["manifest_version"]
    assert record["execution_arn"].endswith(f":{first}-r2")
    assert stack.executions() == [f"{first}-r2"]
    described = stack.step_functions.describe_execution(executionArn=record["execution_arn"])
    assert json.loads(described["input"])["retries"] == first


def test_given_two_requests_at_a_time_then_it_is_one_run(stack: Stack) -> None:
    first = over(stack, "FAILED")
    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(lambda _: retry(stack, first), range(4)))
    assert set(started) == {f"{first}-r2"}
    assert stack.executions() == [f"{first}-r2"]


def test_given_a_retry_failed_too_then_the_next_one_has_the_first_ones_checkpoints(stack: Stack) -> None:
    first = over(stack, "FAILED")
    second = retry(stack, first)
    deployment.deployment(None).records.advance(second, "FAILED")
    assert retry(stack, second) == f"{first}-r3"
    assert stack.record(f"{first}-r3")["retries"] == first


@pytest.mark.parametrize(
    "way", [["PLANNED"], ["REJECTED"], ["PLANNED", "REPEATED"], ["PLANNED", "TRAINING", "COMPLETED"]]
)
def test_given_a_run_that_needs_none_then_it_is_refused_with_what_to_do(stack: Stack, way: list[str]) -> None:
    records = deployment.deployment(None).records
    records.create(RUN, "arn:execution")
    for status in way:
        assert records.advance(RUN.run_id, status).outcome == "changed"
    with pytest.raises(NotRetriableError, match=way[-1] if way != ["REJECTED"] else "not accepted"):
        retry(stack, RUN.run_id)
    assert stack.executions() == []


def test_given_no_such_run_then_that_is_said(stack: Stack) -> None:
    with pytest.raises(RunUnknownError):
        retry(stack, "nobody-000000000000")


@pytest.mark.parametrize("changed", [False, True])
def test_given_other_files_than_before_then_the_retry_says_that_it_begins_anew(
    stack: Stack, changed: bool
) -> None:
    from validate_manifest import handler as validate

    stack.put("datasets/cats/10_cat/a.jpg", image_bytes())
    stack.put("datasets/cats/10_cat/a.txt", b"a cat")
    version = stack.put("datasets/cats/manifest.json", b'{"version": 1}')
    first = validate(dropped("datasets/cats/manifest.json", version), stack.context)["run_id"]
    plan(stack, first)
    deployment.deployment(None).records.advance(first, "FAILED")
    if changed:
        stack.put("datasets/cats/10_cat/a.txt", b"another cat")

    second = retry(stack, first)
    answer = plan(stack, second)

    given = {p["Name"]: p["Value"] for p in answer["ladder"][0]["pipeline_parameters"]}
    assert given["CheckpointS3Location"] == f"s3://{BUCKET}/checkpoints/{first}/"
    assert given["OutputS3ModelLocation"] == f"s3://{BUCKET}/runs/{second}/output/"
    report = json.loads(stack.read(f"runs/{second}/report.json"))
    assert ("retry-differs" in [f["code"] for f in report["findings"]]) is changed


@pytest.mark.parametrize(
    ("changed", "batch"),
    [(False, 8), (True, 4)],
)
def test_given_another_version_would_choose_otherwise_then_the_retry_keeps_the_recipe_of_its_checkpoints(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, changed: bool, batch: int
) -> None:
    from validate_manifest import handler as validate

    stack.put("datasets/cats/160_cat/a.jpg", image_bytes())
    stack.put("datasets/cats/160_cat/a.txt", b"a cat")
    content = b'{"version": 1, "instance_types": ["ml.p5.4xlarge"]}'
    version = stack.put("datasets/cats/manifest.json", content)
    first = validate(dropped("datasets/cats/manifest.json", version), stack.context)["run_id"]
    plan(stack, first)
    document = json.loads(stack.read(f"runs/{first}/input/plan.json"))
    assert document["recipe"]["train_batch_size"] == 8
    monkeypatch.setattr(learning, "MOST_TIMES_THE_BATCH", 1)
    deployment.deployment(None).records.advance(first, "FAILED")
    if changed:
        stack.put("datasets/cats/160_cat/a.txt", b"another cat")

    second = retry(stack, first)
    plan(stack, second)

    config = tomllib.loads(stack.read(f"runs/{second}/input/config.toml").decode())
    assert config["train_batch_size"] == batch
    assert config["max_train_steps"] == 1600 // batch
    if batch == 8:
        assert stack.read(f"runs/{second}/input/config.toml") == stack.read(f"runs/{first}/input/config.toml")


def plan(stack: Stack, run_id: str) -> dict[str, list[dict[str, list[dict[str, str]]]]]:
    """The run as far as its plan."""
    run = stack.record(run_id)
    started = {"run": run, "started_at": run["created_at"]}
    inventory = take_inventory.handler(started, stack.context)
    results = [inspect_shard({"run": run, "shard": shard}, stack.context) for shard in inventory["shards"]]
    answer: dict[str, list[dict[str, list[dict[str, str]]]]] = plan_run.handler(
        {"run": run, "results": results}, stack.context
    )
    return answer
