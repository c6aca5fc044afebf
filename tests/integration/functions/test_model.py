"""Proving the model before anybody is told of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import notify
import pytest
import verify_model

from fine_tuning.aws import deployment
from fine_tuning.errors import ModelNotProvenError
from tests.functions_data import BUCKET, safetensors
from tests.integration.functions.conftest import Stack
from tests.integration.functions.runs import planned

OUTPUT = "output/pipelines-a1b2c3d4e5f6-TrainOnDemand-Xy12Zw34Qr/output/model/"


def make_output(stack: Stack, run: dict[str, Any], model: bytes, **changed: Any) -> dict[str, Any]:
    """A job's output; the observation that names it."""
    prefix = f"runs/{run['run_id']}/{OUTPUT}"
    stack.put(f"{prefix}cats.safetensors", model)
    listed = {
        "name": "cats.safetensors",
        "size": len(model),
        "sha256": hashlib.sha256(model).hexdigest(),
        **changed,
    }
    stack.put(
        f"{prefix}provenance.json",
        json.dumps(
            {
                "model": "cats.safetensors",
                "files": [listed],
                "rehearsal": True,
                "base_model": {"kind": "hub", "id": "o/m", "revision": "abc", "file": None},
                "trigger_word": "ohwx cat",
            }
        ).encode(),
    )
    stack.put(f"{prefix}samples/000.png", b"png")
    return {
        "artifact": f"s3://{BUCKET}/{prefix}",
        "cost_usd": 0.2,
        "seconds": 240,
        "step": 60,
        "total": 60,
        "loss": 0.1,
    }


def without_model(stack: Stack, observation: dict[str, Any]) -> dict[str, Any]:
    stack.s3.delete_object(
        Bucket=BUCKET, Key=f"{observation['artifact'][len(f's3://{BUCKET}/') :]}cats.safetensors"
    )
    return observation


def training(run: dict[str, Any]) -> None:
    deployment.deployment(None).records.advance(run["run_id"], "TRAINING")


def test_given_a_whole_model_then_it_is_proved_told_and_counted_once(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    run = planned(stack)
    training(run)
    observation = make_output(stack, run, safetensors(3))

    verified = verify_model.handler({"run": run, "observation": observation}, stack.context)

    assert verified["model"]["tensors"] == 3
    assert verified["rehearsal"] is True
    assert verified["samples"] == [f"{observation['artifact']}samples/000.png"]
    facts = {**verified, "observation": observation}
    told = [
        notify.handler({"run": run, "kind": "completed", "facts": facts}, stack.context) for _ in range(2)
    ]
    assert told[0] == told[1]
    (counted,) = (line for line in capsys.readouterr().out.splitlines() if '"Runs"' in line)
    assert json.loads(counted)["outcome"] == "COMPLETED"
    assert json.loads(counted)["run_id"] == run["run_id"]
    (mail,) = stack.mails()
    assert "REHEARSAL" in mail["Message"]
    assert "Its base model:\no/m@abc\nTrigger word: ohwx cat\n" in mail["Message"]
    record = stack.record(run["run_id"])
    assert (record["status"], record["model"]["tensors"]) == ("COMPLETED", 3)
    # A final status never changes again.
    assert notify.handler({"run": run, "kind": "failed", "facts": {}}, stack.context) == {
        "status": "COMPLETED",
        "message_id": None,
    }
    assert stack.mails() == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s, r: make_output(s, r, safetensors(), sha256="0" * 64), "not the one"),
        (lambda s, r: make_output(s, r, safetensors(), size=3), "bytes"),
        (lambda s, r: make_output(s, r, safetensors()[:-1]), "describes"),
        (lambda s, r: make_output(s, r, b"\xff" * 64), "claims"),
        (lambda s, r: make_output(s, r, safetensors(0)), "no tensor"),
        (lambda s, r: make_output(s, r, safetensors(), name="other.safetensors"), "lists no model named"),
        (lambda s, r: without_model(s, make_output(s, r, safetensors())), "not in the job's output"),
        (lambda s, r: {"artifact": None}, "nowhere"),
        (lambda s, r: {"artifact": f"s3://{BUCKET}/runs/{r['run_id']}/output/empty/"}, "0 files named"),
    ],
    ids=["digest", "size", "cut", "no-header", "no-tensor", "unlisted", "missing", "no-artifact", "empty"],
)
def test_given_a_doubtful_model_then_nobody_is_told_of_success(
    stack: Stack, spoil: Callable[[Stack, dict[str, Any]], dict[str, Any]], said: str
) -> None:
    run = planned(stack)
    training(run)
    observation = spoil(stack, run)
    with pytest.raises(ModelNotProvenError, match=said):
        verify_model.handler({"run": run, "observation": observation}, stack.context)
