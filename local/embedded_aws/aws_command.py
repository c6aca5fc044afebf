"""`aws` of a build on a machine without the AWS CLI: any operation by name, JSON or text output.

`aws <service> <operation> [--<parameter> <value>…] [--query <JMESPath>] [--output text|json]`, and
`aws ecr get-login-password`. Parameters are strings, numbers, lists of words, `key=value` structures or JSON, as
their shapes say.
"""

import base64
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import boto3
import jmespath
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError

GLOBAL = ("--query", "--output", "--region", "--endpoint-url", "--profile", "--cli-read-timeout")
WITHOUT_VALUE = ("--no-cli-pager", "--no-paginate", "--no-verify-ssl", "--debug")
USAGE_STATUS, SERVICE_STATUS = 252, 254
"""Exit statuses of the AWS CLI, version 2."""


def main(words: Sequence[str]) -> int:
    positional, options = split(words)
    if len(positional) < 2:
        print("usage: aws <service> <operation> [parameters]", file=sys.stderr)
        return USAGE_STATUS
    service, operation = positional[:2]
    try:
        # boto3's overloads know each service by a literal name; here the name is a variable.
        client = boto3.client(
            service,  # type: ignore[call-overload]
            region_name=(options.get("--region") or [os.environ.get("AWS_REGION", "us-east-1")])[0],
        )
        if (service, operation) == ("ecr", "get-login-password"):
            token = client.get_authorization_token()["authorizationData"][0]["authorizationToken"]
            print(base64.b64decode(token).decode().partition(":")[2])
            return 0
        answer = call(client, operation, options)
    except ClientError as error:
        print(f"\n{error}", file=sys.stderr)
        return SERVICE_STATUS
    except (BotoCoreError, KeyError, ValueError) as error:
        print(f"aws: error: {error}", file=sys.stderr)
        return USAGE_STATUS
    query = options.get("--query")
    if query:
        answer = jmespath.search(query[0], answer)
    show(answer, (options.get("--output") or ["json"])[0])
    return 0


def split(words: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Positional words, and the words that follow each `--option` (also as `--option=value`)."""
    positional: list[str] = []
    options: dict[str, list[str]] = {}
    current: list[str] | None = None
    for word in words:
        if word.startswith("--"):
            name, has_value, value = word.partition("=")
            current = options.setdefault(name, [])
            if has_value:
                current.append(value)
        elif current is None:
            positional.append(word)
        else:
            current.append(word)
    return positional, options


def call(client: Any, operation: str, options: dict[str, list[str]]) -> Any:
    names = client.meta.method_to_api_mapping
    method = operation.replace("-", "_")
    if method not in names:
        raise ValueError(f"argument operation: Invalid choice: {operation}")
    shape = client.meta.service_model.operation_model(names[method]).input_shape
    members = (
        {xform_name(name, "-"): (name, member) for name, member in shape.members.items()} if shape else {}
    )
    request = {}
    for option, words in options.items():
        if option in GLOBAL or option in WITHOUT_VALUE:
            continue
        if option.removeprefix("--") not in members:
            raise ValueError(f"Unknown options: {option}")
        name, member = members[option.removeprefix("--")]
        request[name] = parse(member, words)
    answer = getattr(client, method)(**request)
    answer.pop("ResponseMetadata", None)
    return answer


def parse(shape: Any, words: list[str]) -> Any:
    """A parameter's value out of its words."""
    text = " ".join(words)
    if shape.type_name in ("structure", "map", "list") and text[:1] in "[{":
        return json.loads(text)
    if shape.type_name == "list":
        return [parse(shape.member, [word]) for word in words]
    if shape.type_name in ("structure", "map"):
        return dict(pair.split("=", 1) for pair in text.split(","))
    if shape.type_name in ("integer", "long"):
        return int(text)
    if shape.type_name == "boolean":
        return text.lower() in ("", "true")
    return text.encode() if shape.type_name == "blob" else text


def show(answer: Any, output: str) -> None:
    if output == "text" and not isinstance(answer, (dict, list)):
        print(answer)
    elif (
        output == "text"
        and isinstance(answer, list)
        and not any(isinstance(item, (dict, list)) for item in answer)
    ):
        print("\t".join(map(str, answer)))
    else:
        print(json.dumps(answer, indent=4, default=str))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
