"""The template and the state machine as data, for the contract tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "template.yaml"
STATE_MACHINE = ROOT / "statemachine" / "fine_tuning.asl.yaml"

Json = Any


class _TemplateLoader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms; `!Ref x` becomes {"Ref": x}, `!Sub x` {"Fn::Sub": x}."""


def _short_form(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Json:
    if isinstance(node, yaml.ScalarNode):
        value: Json = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if tag == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_TemplateLoader.add_multi_constructor("!", _short_form)


@cache
def template() -> dict[str, Json]:
    loaded: dict[str, Json] = yaml.load(TEMPLATE.read_text(), Loader=_TemplateLoader)
    return loaded


def resources(resource_type: str) -> dict[str, Json]:
    """Logical id → properties of every resource of a type."""
    return {
        name: resource["Properties"]
        for name, resource in template()["Resources"].items()
        if resource["Type"] == resource_type
    }


def statements() -> Iterator[tuple[str, dict[str, Json]]]:
    """(logical id, statement) of every identity policy that the template gives to a principal."""
    for name, properties in resources("AWS::Serverless::Function").items():
        for policy in properties["Policies"]:
            yield from ((name, statement) for statement in policy["Statement"])
    for name, properties in resources("AWS::IAM::Role").items():
        for policy in properties["Policies"]:
            yield from ((name, statement) for statement in policy["PolicyDocument"]["Statement"])


def listed(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [value]


@cache
def state_machine() -> dict[str, Json]:
    """The definition with every substitution replaced by a plausible value."""
    text = STATE_MACHINE.read_text().replace("${Partition}", "aws")
    for number in ("MapConcurrency", "WatchIntervalSeconds", "InstanceWaitSeconds"):
        text = text.replace(f"${{{number}}}", "600")
    text = re.sub(r"\$\{(\w+)\}", r"arn:aws:lambda:us-east-1:000000000000:function:\1", text)
    loaded: dict[str, Json] = yaml.safe_load(text)
    return loaded


def substitutions() -> set[str]:
    """Names that the definition expects from the template's DefinitionSubstitutions."""
    return set(re.findall(r"\$\{(\w+)\}", STATE_MACHINE.read_text()))


def states(machine: dict[str, Json]) -> Iterator[tuple[str, dict[str, Json]]]:
    """Every state, also those inside a Map."""
    for name, state in machine["States"].items():
        yield name, state
        if "ItemProcessor" in state:
            yield from states(state["ItemProcessor"])


def expressions(value: Json) -> Iterator[str]:
    """Every JSONata expression below a value, without its {% %}."""
    if isinstance(value, str) and value.startswith("{%"):
        yield value[2:-2].strip()
    elif isinstance(value, dict):
        for inner in value.values():
            yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)
