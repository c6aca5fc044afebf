"""What the rules wait for is what AWS sends, by AWS's own service specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.contract.definitions import resources
from tests.contract.test_state_machine import checked_by_node

EVENTS = Path(__file__).parents[2] / "events"


def patterns() -> list[tuple[str, dict[str, Any]]]:
    found = [
        (name, properties["EventPattern"]) for name, properties in resources("AWS::Events::Rule").items()
    ]
    for name, properties in resources("AWS::Serverless::Function").items():
        found += [
            (f"{name}.{event}", each["Properties"]["Pattern"])
            for event, each in properties.get("Events", {}).items()
            if each["Type"] == "EventBridgeRule"
        ]
    return found


@pytest.fixture(scope="module")
def schemas() -> dict[str, list[str]]:
    loaded: dict[str, list[str]] = checked_by_node("event_schemas.mjs")
    return loaded


@pytest.mark.parametrize(("name", "pattern"), [pytest.param(*each, id=each[0]) for each in patterns()])
def test_every_rule_matches_fields_that_aws_sends(
    name: str, pattern: dict[str, Any], schemas: dict[str, list[str]]
) -> None:
    for source in pattern["source"]:
        for detail_type in pattern["detail-type"]:
            assert f"{source}/{detail_type}" in schemas
            assert set(pattern.get("detail", {})) <= set(schemas[f"{source}/{detail_type}"]), name


@pytest.mark.parametrize("path", sorted(EVENTS.glob("*.event.json")), ids=lambda path: str(path.name))
def test_every_example_event_has_only_fields_that_aws_sends(
    path: Path, schemas: dict[str, list[str]]
) -> None:
    event = json.loads(path.read_text())
    known = schemas[f"{event['source']}/{event['detail-type']}"]
    # SageMaker's documentation shows FailureReason for failed jobs; the specification leaves it out.
    assert set(event["detail"]) - {"FailureReason"} <= set(known)


def test_there_is_an_example_of_every_event_that_a_rule_waits_for() -> None:
    examples = [json.loads(path.read_text()) for path in EVENTS.glob("*.event.json")]
    shown = {(each["source"], each["detail-type"]) for each in examples}
    waited_for = {
        (pattern["source"][0], kind) for _, pattern in patterns() for kind in pattern["detail-type"]
    }
    assert waited_for <= shown
