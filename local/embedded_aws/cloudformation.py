"""CloudFormation: registration of resource types, state machines in YAML, and time to live of tables."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from ministack.services import dynamodb
from ministack.services.cloudformation import provisioners

from local.embedded_aws.patching import replace

Properties = Mapping[str, Any]
Attributes = dict[str, Any]


def install() -> None:
    known = replace(provisioners, "_sfn_definition", lambda properties: as_json(known(properties)))
    table = provisioners._RESOURCE_HANDLERS["AWS::DynamoDB::Table"]
    create, update = table["create"], table["update"]
    table["create"] = lambda logical_id, new, stack: with_time_to_live(create(logical_id, new, stack), new)
    table["update"] = lambda name, old, new, *where: with_time_to_live(update(name, old, new, *where), new)


def register_resource_type(
    name: str,
    create: Callable[[str, Properties, str], tuple[str, Attributes]],
    update: Callable[[str, Properties, Properties, str], tuple[str, Attributes]],
    delete: Callable[[str, Properties], object],
) -> None:
    """Let stacks have resources of the type.

    `create(logical id, properties, stack)` and `update(physical id, old properties, new properties, stack)`
    give the physical id (what Ref returns; a new one from `update` is a replacement) and the attributes of
    Fn::GetAtt. What they raise fails the stack with its message. `delete` succeeds on what is gone already.
    """
    provisioners._RESOURCE_HANDLERS[name] = {"create": create, "update": update, "delete": delete}


def as_json(definition: str) -> str:
    """A state machine's definition as the JSON that Step Functions stores; CloudFormation takes YAML too."""
    try:
        json.loads(definition)
    except ValueError:
        return json.dumps(yaml.safe_load(definition))
    return definition


def with_time_to_live(table: tuple[str, Attributes], properties: Properties) -> tuple[str, Attributes]:
    """The created or updated table, with the TimeToLiveSpecification that ministack leaves out."""
    specification = properties.get("TimeToLiveSpecification")
    if specification:
        enabled = str(specification.get("Enabled")).lower() == "true"
        dynamodb._update_ttl(
            {"TableName": table[0], "TimeToLiveSpecification": {**specification, "Enabled": enabled}}
        )
    return table
