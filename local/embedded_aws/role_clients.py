"""Clients that act as a role: what a service does on a role's behalf goes over the API, so IAM judges every call."""

import threading
import time
import uuid
from typing import Any

import boto3
from botocore.config import Config
from ministack.core.responses import get_account_id, get_region
from ministack.services import iam as identities
from ministack.services import sts

from local.embedded_aws.iam import trusts
from local.embedded_aws.settings import settings

LIFETIME_SECONDS = 43200
_clients_are_made_one_at_a_time = threading.Lock()


def role_credentials(role_arn: str, session_name: str) -> dict[str, str]:
    """Temporary credentials of the role, as environment variables."""
    account, token = get_account_id(), uuid.uuid4().hex
    key = "ASIA" + token[:16].upper()
    sts.register_session(
        key,
        {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{role_arn.rpartition('/')[2]}/{session_name}",
            "UserId": f"AROA{token[16:]}:{session_name}",
            "AccountId": account,
            "SecretAccessKey": token,
            "SessionToken": token,
            "Expiration": time.time() + LIFETIME_SECONDS,
        },
    )
    return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": token, "AWS_SESSION_TOKEN": token}


class RoleClients:
    """boto3 clients of one role, made when first used.

    Args:
        role_arn: the role.
        session_name: names the caller in error messages, such as SageMaker.
    """

    def __init__(self, role_arn: str, session_name: str) -> None:
        self._credentials = role_credentials(role_arn, session_name)
        self._region = get_region()
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        # boto3's default session is not safe to share while it makes clients; its overloads know each service
        # by a literal name, here the name is a variable.
        with _clients_are_made_one_at_a_time:
            if service not in self._clients:
                self._clients[service] = boto3.client(
                    service,  # type: ignore[call-overload]
                    region_name=self._region,
                    endpoint_url=settings().endpoint,
                    aws_access_key_id=self._credentials["AWS_ACCESS_KEY_ID"],
                    aws_secret_access_key=self._credentials["AWS_SECRET_ACCESS_KEY"],
                    aws_session_token=self._credentials["AWS_SESSION_TOKEN"],
                    config=Config(retries={"total_max_attempts": 2}, s3={"addressing_style": "path"}),
                )
            return self._clients[service]


def may_assume(role_arn: str, service_principal: str) -> bool:
    """Whether the role exists and trusts the service, such as sagemaker.amazonaws.com."""
    role = identities._roles.get(role_arn.rpartition("/")[2])
    return role is not None and trusts(role["AssumeRolePolicyDocument"], service_principal)
