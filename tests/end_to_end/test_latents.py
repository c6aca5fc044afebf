"""A changed manifest of the same dataset: the second run finds the latents that the first one kept."""

from __future__ import annotations

from typing import Any

from tests.end_to_end.journey import QUICK, Stack, dataset, eventually, quick_manifest
from tests.end_to_end.test_permissions import without

FOUND = "images have their latents from an earlier launch"


def drop(stack: Stack, name: str, **config: Any) -> tuple[dict[str, Any], str]:
    """The record of the run once it is over, and its job's log.

    Without a GPU no recipe keeps latents, so that the manifest asks for it, as for a few images on one.
    """
    config = {**QUICK, "cache_latents_to_disk": True, **config}
    before = len(stack.records(f"datasets/{name}/"))
    prefix = stack.drop(name, dataset(3), quick_manifest(config=config))
    eventually(lambda: len(stack.records(prefix)) > before, "another run")
    record = stack.record(prefix)
    assert record["status"] == "COMPLETED", record
    (job,) = stack.training_jobs(record["run_id"])
    return record, (stack.home / "logs" / "training" / f"{job['TrainingJobName']}.log").read_text()


def latents(stack: Stack, record: dict[str, Any]) -> dict[str, str]:
    """`<digest>/<name>` → ETag of what the run has among its checkpoints."""
    prefix = f"checkpoints/{record['run_id']}/latents/"
    listed = stack.client("s3").list_objects_v2(Bucket=stack.bucket, Prefix=prefix).get("Contents", [])
    return {each["Key"].removeprefix(prefix): each["ETag"] for each in listed}


def test_another_learning_rate_trains_on_the_latents_of_the_run_before(stack: Stack) -> None:
    first, log = drop(stack, "latents")
    kept = latents(stack, first)
    assert len(kept) == 3
    assert FOUND not in log
    assert "Latents:" not in stack.mail(first["run_id"], "started")

    # When the manifest alone is changed
    second, log = drop(stack, "latents", learning_rate=5e-4)

    # Then the job found them, wrote no others, and the mail of the start said so
    assert f"3 {FOUND}" in log
    assert latents(stack, second) == kept
    assert f"Latents: 3 of 3 images from {first['run_id']}\n" in stack.mail(second["run_id"], "started")
    assert second["latents"] == {"images": 3, "of": 3, "runs": [first["run_id"]]}

    # And a run that may not copy them encodes its images
    with without(stack, "TakeOverLatentsFunctionRole", "CopyLatents"):
        third, log = drop(stack, "latents", learning_rate=2e-4)
    assert FOUND not in log
    assert latents(stack, third).keys() == kept.keys()
    assert "latents" not in third
