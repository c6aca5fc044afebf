"""Which AWS the commands speak to: the embedded one that `./dev up` left running, or the person's own."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local.cli.embedded import Embedded, running

ROOT = Path(__file__).resolve().parents[2]
REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@dataclass(frozen=True)
class Account:
    """`embedded` is None in the person's own account, whose credentials boto3 finds as it always does."""

    stack_name: str
    region: str
    embedded: Embedded | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def session(self) -> Any:
        if self.embedded is None:
            return boto3.Session(region_name=self.region or None)
        return boto3.Session(
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region_name=self.region,
        )

    def client(self, service: str) -> Any:
        return self.session.client(
            service, endpoint_url=self.endpoint, config=Config(retries={"mode": "standard"})
        )

    def resource(self, service: str) -> Any:
        return self.session.resource(service, endpoint_url=self.endpoint)

    @property
    def endpoint(self) -> str | None:
        return self.embedded.endpoint if self.embedded else None


def embedded_account(embedded: Embedded) -> Account:
    return Account(
        stack_name(ROOT / "samconfig.toml", "local"),
        REGION,
        embedded,
        pointing_at(embedded.endpoint, os.environ),
    )


def own_account() -> Account:
    return Account(
        stack_name(ROOT / "samconfig.toml", "default"),
        os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "",
        environment=os.environ,
    )


def account_in_use() -> Account:
    embedded = running()
    return embedded_account(embedded) if embedded else own_account()


def exports(endpoint: str) -> dict[str, str]:
    """The variables that point the aws CLI, boto3 and sam at the embedded AWS."""
    return {"AWS_ENDPOINT_URL": endpoint, **CREDENTIALS, "AWS_DEFAULT_REGION": REGION}


def pointing_at(endpoint: str, environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without anything that could lead to a real account."""
    kept = {name: value for name, value in environment.items() if not name.startswith("AWS_")}
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return {**kept, **nowhere, **exports(endpoint), "AWS_EC2_METADATA_DISABLED": "true"}


def stack_name(samconfig: Path, environment: str) -> str:
    parameters: dict[str, Any] = tomllib.loads(samconfig.read_text(encoding="utf-8"))[environment]["deploy"][
        "parameters"
    ]
    return str(parameters["stack_name"])
