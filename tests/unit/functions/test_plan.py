"""What is decided about a dataset, and what it is said to cost."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from fine_tuning import kohya_toml, plan
from fine_tuning.base_model import (
    DEFAULT_ID,
    DEFAULT_REVISION,
    BaseModelElsewhereError,
    NamedModel,
    base_model,
)
from fine_tuning.inventory import InspectedFile
from fine_tuning.limits import Limits
from fine_tuning.manifest import Manifest
from fine_tuning.pipeline_parameters import ladder_of
from fine_tuning.plan import Decision
from fine_tuning.report import rejection, report
from tests.functions_data import BUCKET, EVENTS, RUN, file
from tests.recipe_data import USERS_OWN

LIMITS = Limits("v25.2.2", ("ml.g5.8xlarge",), 50, 86400, None)
FILES = [file("10_x/a.jpg"), file("10_x/a.txt"), file("10_x/b.jpg", 640, 480), file("10_x/b.txt")]


def decide(
    files: list[InspectedFile] | None = None, toml: bytes | None = None, limits: Limits = LIMITS, **keys: Any
) -> Decision:
    manifest = Manifest.from_document({"version": 1, **keys})
    return plan.plan(RUN, manifest, FILES if files is None else files, toml, [], limits)


def codes(decision: Decision, severity: str = "error") -> list[str]:
    return [finding.code for finding in decision.findings if finding.severity == severity]


def test_an_accepted_plan() -> None:
    decision = decide(
        config={"train_batch_size": 4, "max_train_epochs": 2},
        trigger_word="sks",
        licence="CC0-1.0",
        validation_patience=7,
    )
    assert decision.accepted
    assert decision.summary is not None
    assert decision.plan is not None
    # Two buckets of 10 images: ceil(10 / 4) = 3 batches each, 2 epochs.
    assert (decision.summary["total_steps"], decision.summary["images"]) == (12, 2)
    assert decision.plan["output_name"] == "cats"
    assert decision.plan["validation_patience"] == 7
    assert decision.plan["base_model"]["kind"] == "hub"
    assert decision.plan["epochs"] == 2


@pytest.mark.parametrize("name", sorted(USERS_OWN))
def test_what_the_user_set_reaches_the_trainer_and_is_called_the_users(name: str) -> None:
    toml = kohya_toml.write({name: USERS_OWN[name]})
    for decision in (decide(config={name: USERS_OWN[name]}), decide(toml=toml)):
        assert decision.config is not None
        assert decision.plan is not None
        assert decision.config[name] == USERS_OWN[name]
        assert decision.plan["chosen_by_user"] == [name]


def test_steps_are_never_the_trainers_silent_default() -> None:
    decision = decide()
    assert codes(decision, "note") == ["steps-planned"]
    assert decision.summary is not None
    assert decision.summary["total_steps"] == 60


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"max_cost_usd": 0.01}, ["budget-exceeded"]),
        ({"instance_types": ["ml.x9.large"], "max_cost_usd": 5}, ["price-unknown"]),
        ({"instance_types": ["ml.x9.large"]}, []),
        ({"config": {"max_train_steps": 10_000_000}}, ["runtime-exceeded"]),
        ({"config": {"min_bucket_reso": 5000}}, ["option-invalid"]),
        ({"privacy": True}, []),
        ({"base_model": "s3://elsewhere/models/x/m.safetensors"}, ["base-model-elsewhere"]),
        ({"config": {"network_module": "os"}, "max_cost_usd": 0.01}, ["budget-exceeded", "option-refused"]),
    ],
)
def test_errors(keys: dict[str, Any], expected: list[str]) -> None:
    decision = decide(**keys)
    assert codes(decision) == expected
    assert decision.accepted is not bool(expected)


def test_the_budget_of_the_stack_counts_too() -> None:
    limits = Limits("v25.2.2", ("ml.g5.8xlarge",), 50, 86400, 0.01)
    assert codes(decide(limits=limits, max_cost_usd=100)) == ["budget-exceeded"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], ["dataset-without-images"]),
        ([file("notes.md")], ["dataset-without-images"]),
        ([file("reg/1_x/a.jpg")], ["dataset-without-images"]),
        ([file("x/a.jpg"), file("y/a.jpg")], ["layout-unclear"]),
        ([file("10_x/a.jpg")], ["dataset-without-captions"]),
        ([file("10_x/a.jpg"), file("10_x/b.txt")], ["dataset-without-captions"]),
    ],
)
def test_datasets_that_cannot_be_trained_on(files: list[InspectedFile], expected: list[str]) -> None:
    assert codes(decide(files)) == expected


def test_some_captions_are_enough() -> None:
    assert decide([*FILES, file("10_x/c.jpg")]).accepted


@pytest.mark.parametrize("toml", [None, b"a = = 1"])
def test_the_report_is_what_its_schema_says(toml: bytes | None) -> None:
    schema = json.loads((EVENTS / "report.schema.json").read_bytes())
    decision = decide(toml=toml)
    assert decision.accepted is (toml is None)
    jsonschema_rs.validate(schema, report(decision))
    jsonschema_rs.validate(schema, rejection(decision.findings))


def parameters(rung: dict[str, Any]) -> dict[str, str]:
    return {p["Name"]: p["Value"] for p in rung["pipeline_parameters"]}


def test_the_pipelines_parameters() -> None:
    decision = decide(spot=True, base_model=f"s3://{BUCKET}/models/m.safetensors")
    given = parameters(ladder_of(RUN, decision, LIMITS)[0])
    assert decision.summary is not None
    runtime = decision.summary["max_runtime_seconds"]
    assert given == {
        "InputS3DatasetLocation": f"s3://{BUCKET}/datasets/cats/",
        "InputS3ConfigurationLocation": f"s3://{BUCKET}/runs/{RUN.run_id}/input/",
        "InputS3ModelLocation": f"s3://{BUCKET}/models/m.safetensors",
        "OutputS3ModelLocation": f"s3://{BUCKET}/runs/{RUN.run_id}/output/",
        "CheckpointS3Location": f"s3://{BUCKET}/checkpoints/{RUN.run_id}/",
        "TrainingInstanceType": "ml.g5.8xlarge",
        "TrainingVolumeSizeInGB": "50",
        "MaxTrainingRuntimeInSeconds": str(runtime),
        "TrainingMode": "spot",
        "RunId": RUN.run_id,
        "NetworkIsolation": "True",
        "MaxWaitTimeInSeconds": str(2 * runtime),
    }
    assert decision.plan is not None
    assert decision.plan["base_model"]["file"] == "m.safetensors"
    on_demand = parameters(ladder_of(RUN, decide(), LIMITS)[0])
    assert on_demand["TrainingMode"] == "on-demand"
    assert on_demand["InputS3ModelLocation"] == on_demand["InputS3ConfigurationLocation"]
    assert on_demand["NetworkIsolation"] == "False"
    assert "MaxWaitTimeInSeconds" not in on_demand


@pytest.mark.parametrize(("of_manifest", "of_stack"), [(1.0, None), (None, 1.0), (1.0, 9.0), (9.0, 1.0)])
def test_the_smaller_budget_ends_the_job_and_the_report_says_so(
    of_manifest: float | None, of_stack: float | None
) -> None:
    limits = Limits("v25.2.2", ("ml.g5.8xlarge",), 50, 86400, of_stack)
    decision = decide(limits=limits, **({} if of_manifest is None else {"max_cost_usd": of_manifest}))
    assert decision.summary is not None
    assert decision.summary["max_runtime_seconds"] == 1176  # 1 USD at 3.06 USD an hour
    (note,) = [finding for finding in decision.findings if finding.code == "budget-kept"]
    assert "1176 s" in note.message
    assert "1.00 USD" in note.message


@pytest.mark.parametrize(
    ("instance_type", "accumulation", "steps"),
    # Two buckets of 10 images in batches of 1 make 20 batches.
    [
        ("ml.g5.8xlarge", 1, 20),
        ("ml.p4d.24xlarge", 1, 3),
        ("ml.p5.48xlarge", 2, 2),
        ("ml.g5.8xlarge", 3, 7),
        ("ml.x9.large", 1, 20),
    ],
)
def test_the_gpus_of_an_instance_share_the_batches(instance_type: str, accumulation: int, steps: int) -> None:
    config = {"train_batch_size": 1, "max_train_epochs": 1, "gradient_accumulation_steps": accumulation}
    decision = decide(config=config, instance_types=[instance_type])
    assert decision.summary is not None
    assert decision.summary["total_steps"] == steps
    assert decision.config is not None
    assert decision.config["max_train_steps"] == steps


def test_base_models() -> None:
    default = base_model(None, None, BUCKET)
    assert (default.kind, default.file) == ("hub", "sd_xl_base_1.0.safetensors")
    assert default.revision is not None
    assert len(default.revision) == 40
    of_the_toml = NamedModel("c/d", "kohya-sdxl-config.toml")
    assert base_model("a/b@main", of_the_toml, BUCKET).name == "a/b@main"
    assert base_model(None, of_the_toml, BUCKET).name == "c/d@main"
    channel = base_model(f"s3://{BUCKET}/models/x/m.safetensors", None, BUCKET)
    assert (channel.kind, channel.id, channel.file) == (
        "channel",
        f"s3://{BUCKET}/models/x/",
        "m.safetensors",
    )
    with pytest.raises(BaseModelElsewhereError):
        base_model("s3://elsewhere/m/m.safetensors", None, BUCKET)
    with pytest.raises(BaseModelElsewhereError):
        base_model(f"s3://{BUCKET}/m.safetensors", None, BUCKET)


@pytest.mark.parametrize(
    ("named", "trained_on", "told"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", "", []),
        ("some/model", "some/model@main", [("warning", "base-model-unpinned")]),
        ("D:/models/sd_xl_base_1.0.safetensors", "", [("note", "option-overridden")]),
        ("D:\\models\\sd_xl_base_1.0.safetensors", "", [("note", "option-overridden")]),
        *(
            (path, "", [("warning", "base-model-replaced")])
            for path in (
                *(
                    "D:/models/ponyDiffusionV6XL.safetensors",
                    "D:/pony",
                    "My Models/pony v6",
                    "models\\pony/x",
                ),
                *("sdxl/", "/a/b", "./a/b", "a/b.safetensors", "a/b.CKPT", "pony", "a/b/c", "~/pony"),
            )
        ),
    ],
)
def test_no_other_base_model_is_trained_on_in_silence(
    named: str, trained_on: str, told: list[tuple[str, str]]
) -> None:
    toml = f"pretrained_model_name_or_path = {json.dumps(named)}".encode()
    decision = decide(FILES[:2], toml, config={"max_train_epochs": 1})
    document = report(decision)
    trained_on = trained_on or f"{DEFAULT_ID}@{DEFAULT_REVISION}"
    assert document["plan"]["base_model"] == trained_on
    assert [(one.severity, one.code) for one in decision.findings] == told
    assert all(named in one.message for one in decision.findings)
    assert all(trained_on in one.message for one in decision.findings if one.code == "base-model-replaced")
    beside = decide(FILES[:2], toml, config={"max_train_epochs": 1}, base_model="x/y@main")
    assert [(one.severity, one.code) for one in beside.findings] == [("note", "option-overridden")]
    assert report(beside)["plan"]["base_model"] == "x/y@main"


def test_sentences_keep_the_writing_of_names() -> None:
    (of_buckets,) = (
        one for one in decide(config={"bucket_reso_steps": 1}).findings if one.severity == "error"
    )
    assert "bucket_reso_steps is 1; SDXL needs" in of_buckets.message
    budget = next(one for one in decide(max_cost_usd=0.2).findings if one.code == "budget-exceeded")
    assert " USD, or raise max_cost_usd" in budget.remedy
    assert budget.remedy[0].isupper()


def test_images_held_back_for_validation_are_not_in_the_buckets_and_the_split_is_one_and_the_same() -> None:
    files = [file(f"10_x/{n}.jpg") for n in range(10)] + [file(f"10_x/{n}.txt") for n in range(10)]
    decision = decide(files, validation_split=0.2, config={"max_train_epochs": 1, "train_batch_size": 4})
    assert decision.config is not None
    assert decision.config["validation_seed"] == decision.config["seed"]
    assert [bucket.images for bucket in decision.buckets] == [80]
    assert decision.config["max_train_steps"] == 20
