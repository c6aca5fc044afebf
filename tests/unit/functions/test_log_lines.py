"""Every line that a handler logs says what it is about."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fine_tuning import observability
from fine_tuning.aws import deployment
from fine_tuning.errors import FineTuningError
from fine_tuning.observability import subject_of
from fine_tuning.run import run_id_of
from tests.functions_data import BUCKET, REPOSITORY, RUN, dropped, event

HANDLERS = sorted(file.stem for file in (REPOSITORY / "functions").glob("*.py"))
OF_FLOW = {"run": RUN.as_payload()}
# What a state hands over beside the run is of no matter here; each of these is delivered by a rule or a person.
OF_RULES: dict[str, list[dict[str, Any]]] = {
    "validate_manifest": [dropped(RUN.manifest_key, "v1")],
    "observe_training": [
        event("sagemaker-pipeline-execution"),
        event("sagemaker-training-job", TrainingJobName="pipelines-0123456789ab-Train-x"),
    ],
    "retry_run": [{"run_id": RUN.run_id}],
    "stop_training": [event("stepfunctions-execution-aborted"), OF_FLOW],
}
# The schedule is about all runs; the runs that it ends or misses are in its answer and its errors.
ABOUT_NO_RUN = {"reconcile_runs": [{"detail-type": "Scheduled Event", "detail": {}}]}
SUBJECTS = ("run_id", "build_id", "pipeline_execution_id")
CASES = [
    pytest.param(name, document, id=f"{name}-{number}")
    for name in HANDLERS
    for number, document in enumerate({**OF_RULES, **ABOUT_NO_RUN}.get(name, [OF_FLOW]))
]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that is given nothing: it fails at once, and says so."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.endswith(("TABLE_NAME", "BUCKET_NAME", "_ARN")):
            monkeypatch.delenv(name)
    deployment.forget()


def handler_of(name: str) -> Any:
    specification = importlib.util.spec_from_file_location(name, REPOSITORY / "functions" / f"{name}.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.handler


def context() -> SimpleNamespace:
    return SimpleNamespace(
        function_name="f",
        memory_limit_in_mb=512,
        invoked_function_arn="arn:f",
        aws_request_id="r",
        get_remaining_time_in_millis=lambda: 30_000,
    )


@pytest.mark.parametrize(("name", "document"), CASES)
def test_the_line_of_a_failure_names_its_run(
    name: str, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    for output in observability.logger._logger.handlers:
        monkeypatch.setattr(output, "emit", lambda record, on=output: written.append(on.format(record)))
    with pytest.raises((FineTuningError, KeyError)):
        handler_of(name)(document, context())
    assert written
    for line in map(json.loads, written):
        named = {key: line[key] for key in SUBJECTS if key in line}
        assert named == subject_of(document)
        assert line["level"] == "ERROR"
        assert line["remedy"]


@pytest.mark.parametrize("name", sorted(set(HANDLERS) - set(ABOUT_NO_RUN)))
def test_what_reaches_a_handler_tells_what_it_is_about(name: str) -> None:
    for document in OF_RULES.get(name, [OF_FLOW]):
        assert subject_of(document), document


def test_a_drop_is_known_by_the_run_that_it_will_be() -> None:
    subject = subject_of(dropped("datasets/cats/manifest.json", "v7"))
    assert subject == {"run_id": run_id_of(BUCKET, "datasets/cats/manifest.json", "v7")}


def test_there_is_no_handler_without_it() -> None:
    for name in HANDLERS:
        source = Path(REPOSITORY / "functions" / f"{name}.py").read_text(encoding="utf-8")
        assert "@observed\ndef handler(" in source, name
