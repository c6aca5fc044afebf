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
from botocore.exceptions import BotoCoreError, ClientError

from local.cli import embedded as embedded_aws
from local.cli.embedded import Embedded
from local.cli.failure import CommandError
from local.cli.repository import ROOT

REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@dataclass(frozen=True)
class Account:
    """`embedded` is None in the person's own account, whose credentials boto3 finds as it always does, with `profile`
    where that is not empty."""

    stack_name: str
    region: str
    embedded: Embedded | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    profile: str = ""

    @cached_property
    def session(self) -> Any:
        if self.embedded is None:
            return boto3.Session(region_name=self.region or None, profile_name=self.profile or None)
        return boto3.Session(
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region_name=self.region,
        )

    def client(self, service: str, config: Config | None = None) -> Any:
        config = config or Config(retries={"mode": "standard"})
        return self.session.client(service, endpoint_url=self.endpoint, config=config)

    def resource(self, service: str) -> Any:
        return self.session.resource(service, endpoint_url=self.endpoint)

    @property
    def endpoint(self) -> str | None:
        return self.embedded.endpoint if self.embedded else None


def seconds_between_looks(account: Account, own: float = 5.0) -> float:
    """How often AWS is asked while something is waited for; the person's own shares its limits with the application."""
    return own if account.embedded is None else 0.25


def embedded_account(embedded: Embedded) -> Account:
    return Account(
        stack_name(ROOT / "samconfig.toml", "local"),
        REGION,
        embedded,
        pointing_at(embedded.endpoint, os.environ),
    )


def own_account(samconfig: Path = ROOT / "samconfig.toml") -> Account:
    """Region and profile are the environment's or, where it gives none, those that `sam deploy` takes."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    credentials = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID")
    profile = "" if any(os.environ.get(name) for name in credentials) else written(samconfig, "profile")
    region = region or written(samconfig, "region")
    # git-remote-codecommit and git read the environment alone.
    chosen = {"AWS_PROFILE": profile} if profile else {}
    return Account(
        stack_name(samconfig, "default"), region, environment={**os.environ, **chosen}, profile=profile
    )


def account_in_use() -> Account:
    """Raises CommandError when `./dev up` left a trace and no server: a person who meant the embedded AWS must not
    reach a real account."""
    found = embedded_aws.running()
    if found:
        return embedded_account(found)
    if embedded_aws.STATE.exists():
        raise CommandError(
            "what ./dev up started is not running any more. ./dev up starts it anew; after ./dev down the "
            "commands speak to your own AWS account."
        )
    return own_account()


def place_of(account: Account) -> str:
    """The account and region that a command is about to act on, as AWS itself names them.

    Raises CommandError where the credentials, or the region, are missing or wrong.
    """
    try:
        client = account.client("sts")
        number = client.get_caller_identity()["Account"]
    except (ClientError, BotoCoreError) as error:
        raise CommandError(
            f"AWS does not say whose credentials these are ({error}). Nothing is up; ./dev up starts the embedded "
            "AWS. For your own account, `aws sts get-caller-identity` must answer, and a region be set."
        ) from error
    return f"AWS account {number}, region {client.meta.region_name}, stack {account.stack_name}"


def exports(endpoint: str) -> dict[str, str]:
    """The variables that point the aws CLI, boto3 and sam at the embedded AWS."""
    return {"AWS_ENDPOINT_URL": endpoint, **CREDENTIALS, "AWS_DEFAULT_REGION": REGION}


def pointing_at(endpoint: str, environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without anything that could lead to a real account."""
    kept = {name: value for name, value in environment.items() if not name.startswith("AWS_")}
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return {**kept, **nowhere, **exports(endpoint), "AWS_EC2_METADATA_DISABLED": "true"}


def stack_name(samconfig: Path, environment: str) -> str:
    return written(samconfig, "stack_name", environment)


def written(samconfig: Path, name: str, environment: str = "default") -> str:
    """A parameter of `sam deploy`, or of all commands; empty where neither is written down."""
    content: dict[str, Any] = tomllib.loads(samconfig.read_text(encoding="utf-8")).get(environment, {})
    for command in ("deploy", "global"):
        parameters: dict[str, Any] = content.get(command, {}).get("parameters", {})
        if name in parameters:
            return str(parameters[name])
    return ""
