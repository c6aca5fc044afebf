"""Smaller rules: run names, statuses, settings, identity, images, observations, model files."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_tuning import model_file, observation, pipeline_execution, statuses
from fine_tuning.errors import ConfigurationError, FineTuningError, ModelNotProvenError, split_message
from fine_tuning.identity import identity, is_repetition
from fine_tuning.image import decide
from fine_tuning.instances import Prices
from fine_tuning.run import Run, result_key_of, run_id_of
from fine_tuning.settings import Settings
from fine_tuning.steps.receiving import Drop
from tests.functions_data import BUCKET, IMAGE, event, file, safetensors

# -- runs


def test_a_run_is_named_after_its_dataset_and_the_manifests_version() -> None:
    run = Run.of_manifest("b", "datasets/My Cats!/manifest.json", "v1")
    digest = hashlib.sha256(b"b/datasets/My Cats!/manifest.json/v1").hexdigest()[:12]
    assert run.run_id == f"my-cats-{digest}"
    assert (run.dataset_prefix, run.dataset) == ("datasets/My Cats!/", "My Cats!")
    assert Run.from_payload({**run.as_payload(), "status": "RECEIVED"}) == run


@given(st.text(max_size=200), st.text(max_size=50))
def test_a_run_id_is_a_valid_execution_name(folder: str, version: str) -> None:
    name = run_id_of("bucket", f"{folder}/manifest.json", version)
    assert 14 <= len(name) <= 53
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_a_shards_result_lies_beside_it() -> None:
    assert (
        result_key_of("runs/shard-1/inspection/shard-0003.json") == "runs/shard-1/inspection/result-0003.json"
    )


def test_the_event_names_the_drop_as_it_stands() -> None:
    drop = Drop.of_event(event("s3-object-created"))
    assert drop == Drop(BUCKET, "datasets/cats/manifest.json", "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e")
    assert drop.is_manifest_of(BUCKET)
    assert not drop.is_manifest_of("other")
    assert (
        Drop.of_event(event("s3-object-created", object={"key": "0001-dataset/manifest.json"})).version
        == "null"
    )


@pytest.mark.parametrize(
    "key",
    [
        "runs/a/manifest.json",
        "checkpoints/a/manifest.json",
        "models/manifest.json",
        "model-outputs/manifest.json",
    ],
)
def test_what_the_application_writes_starts_nothing(key: str) -> None:
    assert not Drop(BUCKET, key, "v").is_manifest_of(BUCKET)


# -- statuses


def test_final_statuses_never_change_again() -> None:
    every = set(statuses.FINAL) | set(statuses.predecessors("FAILED"))
    assert not any(statuses.FINAL & statuses.predecessors(status) for status in every)
    assert all(statuses.predecessors(final) for final in statuses.FINAL)


def test_a_flow_never_goes_back() -> None:
    assert {"STARTING", "PLANNED"} <= statuses.predecessors("TRAINING")
    assert "TRAINING" not in statuses.predecessors("STARTING")
    assert "TRAINING" not in statuses.predecessors("REJECTED")
    assert "PLANNED" not in statuses.predecessors("COMPLETED")
    assert set(statuses.OF_MAIL.values()) == set(statuses.FINAL)


# -- settings


def test_a_variable_is_missed_when_it_is_needed_and_by_its_name() -> None:
    settings = Settings({"INSTANCE_TYPES": "ml.a, ml.b", "MAX_COST_USD": "", "SHARD_SIZE": "many"})
    assert settings.instance_types == ("ml.a", "ml.b")
    assert settings.max_cost_usd is None
    with pytest.raises(ConfigurationError, match="BUCKET_NAME"):
        _ = settings.bucket_name
    with pytest.raises(ConfigurationError, match="SHARD_SIZE is 'many'"):
        _ = settings.shard_size


def test_an_error_can_be_taken_apart_again() -> None:
    problem = FineTuningError("It broke.", "Mend it.")
    assert split_message(str(problem)) == ("It broke.", "Mend it.")
    assert split_message("Other.") == ("Other.", None)


# -- identity


def test_only_what_makes_another_model_makes_another_identity() -> None:
    files, model = [file("a.jpg"), file("b.txt")], {"kind": "hub", "id": "m", "revision": "r"}
    same = identity({"version": 1}, files, model, IMAGE)
    assert identity({"version": 1, "force": True, "max_cost_usd": 3}, files[::-1], model, IMAGE) == same
    others = [
        identity({"version": 1, "repeats": 3}, files, model, IMAGE),
        identity({"version": 1}, files[:1], model, IMAGE),
        identity({"version": 1}, files, {**model, "revision": "s"}, IMAGE),
        identity({"version": 1}, files, model, IMAGE.replace("a" * 64, "b" * 64)),
    ]
    assert len({same, *others}) == 5


@pytest.mark.parametrize(
    ("status", "forced", "expected"),
    [
        ("TRAINING", False, True),
        ("RECEIVED", False, True),
        ("COMPLETED", False, True),
        ("COMPLETED", True, False),
        ("FAILED", False, False),
        ("STOPPED", False, False),
        ("REPEATED", False, False),
        (None, False, False),
    ],
)
def test_repetition(status: str | None, forced: bool, expected: bool) -> None:
    assert is_repetition(status, forced) is expected


# -- images


@dataclass(frozen=True)
class Build:
    build_id: str
    status: str
    commit: str | None


RUNNING, BROKEN, DONE = (
    Build("b", "IN_PROGRESS", "c1"),
    Build("b", "FAILED", "c1"),
    Build("b", "SUCCEEDED", "c1"),
)


@pytest.mark.parametrize(
    ("image", "builds", "commit", "status", "starts"),
    [
        ("i@d", [BROKEN], "c1", "ready", False),
        (None, [RUNNING], "c1", "building", False),
        (None, [BROKEN, RUNNING], "c2", "building", False),
        (None, [], None, "no_source", False),
        (None, [], "c1", "building", True),
        (None, [BROKEN], "c1", "failed", False),
        (None, [Build("b", "FAILED", None)], "c1", "failed", False),
        (None, [BROKEN], "c2", "building", True),
        (None, [Build("b", "STOPPED", "c1")], "c1", "building", True),
        (None, [DONE], "c1", "building", True),
    ],
)
def test_image(image: str | None, builds: list[Build], commit: str | None, status: str, starts: bool) -> None:
    decision = decide(image, builds, commit)
    assert (decision.status, decision.starts_build) == (status, starts)


# -- observations

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def observed(
    job: dict[str, Any] | None = None, status: str = "Executing", **metrics: float
) -> observation.Observation:
    named = {f"train:{name}": value for name, value in metrics.items()}
    return observation.observe({"PipelineExecutionStatus": status}, [], job, named, NOW, Prices())


@pytest.mark.parametrize(("instance_type", "each"), [("ml.g5.8xlarge", 96.0), ("ml.p4d.24xlarge", 12.0)])
def test_the_use_of_several_gpus_is_that_of_each(instance_type: str, each: float) -> None:
    job, metrics = {"ResourceConfig": {"InstanceType": instance_type}}, {"GPUUtilization": 96.0}
    execution = {"PipelineExecutionStatus": "Executing"}
    assert observation.observe(execution, [], job, metrics, NOW, Prices()).gpu_utilization == each
    assert observed(job).gpu_utilization is None


def test_before_there_is_a_job_numbers_are_unknown() -> None:
    seen = observed()
    assert (seen.terminal, seen.step, seen.cost_usd, seen.reason, seen.artifact) == (
        False,
        None,
        None,
        None,
        None,
    )
    assert seen.observed_at == "2026-11-23T12:00:00+00:00"


@pytest.mark.parametrize(
    ("status", "terminal"),
    [
        ("Executing", False),
        ("Stopping", False),
        ("Stopped", True),
        ("Failed", True),
        ("Succeeded", True),
        ("CompletedWithFailures", True),
    ],
)
def test_terminal(status: str, terminal: bool) -> None:
    assert observed(status=status).terminal is terminal


def test_a_loss_that_is_no_number_is_unknown() -> None:
    seen = observed({}, step=3.0, loss=float("nan"))
    assert (seen.step, seen.loss) == (3, None)


def test_the_containers_own_words_are_the_reason() -> None:
    job = {"FailureReason": "AlgorithmError: No data.\nAdd images.\nlog, exit code: 1"}
    assert observed(job).reason == "No data.\nAdd images.\nlog"
    steps = [{"FailureReason": "ClientError: quota"}]
    execution = {"PipelineExecutionStatus": "Failed", "FailureReason": "Step failure"}
    assert observation.observe(execution, steps, None, {}, NOW, Prices()).reason == "ClientError: quota"
    assert observation.observe(execution, [], None, {}, NOW, Prices()).reason == "Step failure"


def test_the_latest_training_job_is_the_one() -> None:
    steps = [
        {"StartTime": NOW, "Metadata": {"TrainingJob": {"Arn": "arn:x:training-job/second"}}},
        {"StartTime": NOW.replace(hour=1), "Metadata": {"TrainingJob": {"Arn": "arn:x:training-job/first"}}},
        {"StartTime": NOW, "Metadata": {"Condition": {"Outcome": "True"}}},
    ]
    assert observation.training_job_name(steps) == "second"
    assert observation.training_job_name([]) is None


@pytest.mark.parametrize(
    "name", ["sagemaker-pipeline-execution", "sagemaker-pipeline-execution-step", "sagemaker-training-job"]
)
def test_each_of_sagemakers_events_names_its_pipeline_execution(name: str) -> None:
    assert pipeline_execution.id_of_event(event(name)) == "a1b2c3d4e5f6"


def test_a_job_of_nobodys_pipeline_names_none() -> None:
    assert (
        pipeline_execution.id_of_event(event("sagemaker-training-job", TrainingJobName="my-own-job")) is None
    )


# -- model files


def header_of(content: bytes) -> model_file.ModelHeader:
    length = model_file.header_length(content[:8], len(content))
    return model_file.read_header(content[8 : 8 + length], len(content))


def test_a_whole_model() -> None:
    header = header_of(safetensors(3, {"rehearsal": "true"}))
    assert (header.tensors, header.metadata) == (3, {"rehearsal": "true"})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"a": {}}',
        safetensors()[:-1],
        safetensors() + b"x",
        safetensors(0),
    ],
)
def test_what_is_no_whole_model(content: bytes) -> None:
    with pytest.raises(ModelNotProvenError):
        header_of(content)


@given(st.binary(max_size=100))
def test_no_bytes_are_a_model_by_chance(content: bytes) -> None:
    with pytest.raises(ModelNotProvenError):
        header_of(content)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"files": [{"name": "a"}]}', b'{"files": 3}'])
def test_a_provenance_that_is_none(content: bytes) -> None:
    with pytest.raises(ModelNotProvenError):
        model_file.read_provenance(content)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ({"kind": "hub", "id": "o/m", "revision": "abc", "file": None, "sha256": "x"}, "o/m@abc"),
        (
            {"kind": "channel", "id": "s3://b/models/pony/", "revision": None, "file": "v6.safetensors"},
            "s3://b/models/pony/v6.safetensors",
        ),
        ({"kind": "configured", "id": "o/m"}, "o/m"),
        (None, None),
    ],
)
def test_a_provenance_tells_what_to_draw_with(told: dict[str, Any] | None, name: str | None) -> None:
    document = {"model": "a", "files": [], "base_model": told, "trigger_word": "ohwx cat"}
    provenance = model_file.read_provenance(json.dumps(document).encode())
    assert (provenance.base_model, provenance.trigger_word) == (name, "ohwx cat")


@pytest.mark.parametrize("named", ["c.safetensors", "a.txt", ""])
def test_the_model_of_a_provenance_is_one_that_it_lists(named: str) -> None:
    one = {"name": "a.safetensors", "size": 1, "sha256": "x"}
    files = [one, {**one, "name": "b.safetensors"}, {**one, "name": "a.txt"}]
    assert model_file.read_provenance(
        json.dumps({"model": "b.safetensors", "files": files}).encode()
    ).model.name == ("b.safetensors")
    with pytest.raises(ModelNotProvenError, match="lists no model"):
        _ = model_file.read_provenance(json.dumps({"model": named, "files": files}).encode()).model
