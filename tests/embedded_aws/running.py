"""The embedded AWS in a process of its own, for tests."""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config

REPOSITORY = Path(__file__).resolve().parents[2]
REGION = "us-east-1"
ACCOUNT = "000000000000"
START_SECONDS = 60.0
STOP_SECONDS = 20.0


class RunningEmbeddedAws:
    """`with RunningEmbeddedAws() as aws:` starts the server on a free port and stops it with all its
    children.

    Its interpreter is EMBEDDED_AWS_PYTHON, by default the one that runs the tests. Without a `home` it makes
    a temporary folder and removes it.
    """

    def __init__(self, home: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._temporary = None if home else tempfile.TemporaryDirectory(prefix="embedded-aws-")
        self.home = home or Path(self._temporary.name if self._temporary else "")
        self._environment = dict(environment or {})
        self.endpoint = ""
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        python = os.environ.get("EMBEDDED_AWS_PYTHON") or sys.executable
        self.process = subprocess.Popen(
            [python, "-m", "local.embedded_aws"],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "EMBEDDED_AWS_PORT": "0",
                "EMBEDDED_AWS_HOME": str(self.home),
                **self._environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            self.endpoint = self._wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait_until_ready(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        timer = threading.Timer(START_SECONDS, self.process.kill)
        timer.start()
        said = []
        try:
            for line in self.process.stdout:
                if line.startswith("ready "):
                    return line.split()[1]
                said.append(line)
        finally:
            timer.cancel()
        raise RuntimeError("the embedded AWS did not start:\n" + "".join(said))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        if self._temporary:
            self._temporary.cleanup()

    def client(self, service: str, **credentials: str) -> Any:
        """A boto3 client as the account's root, or with the given credentials; it never retries by itself."""
        return self._client(service, tuple(sorted(credentials.items())))

    @cache  # noqa: B019  (clients are few, and end with the server)
    def _client(self, service: str, credentials: tuple[tuple[str, str], ...]) -> Any:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", **dict(credentials)}
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.endpoint,
            region_name=REGION,
            config=Config(retries={"max_attempts": 0}, read_timeout=120, s3={"addressing_style": "path"}),
            **keys,
        )

    @property
    def log(self) -> str:
        return (self.home / "server.log").read_text()

    def mails(self) -> list[EmailMessage]:
        """The delivered messages, oldest first."""
        files = sorted((self.home / "mailbox").glob("*.eml"))
        return [message_from_bytes(file.read_bytes(), policy=policy.default) for file in files]

    def create_role(self, name: str, trusted_service: str, *statements: Mapping[str, Any]) -> str:
        """The ARN of a new role that the service may assume and whose one policy has the statements."""
        iam = self.client("iam")
        trust = {"Effect": "Allow", "Principal": {"Service": trusted_service}, "Action": "sts:AssumeRole"}
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy_document(trust))["Role"]["Arn"]
        if statements:
            iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=policy_document(*statements))
        return str(arn)

    def create_function(self, name: str, code: str, role: str, **more: Any) -> str:
        """The ARN of a new Python function whose handler is `app.handler` of `code`."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as files:
            # A fixed date, so that one code makes one artifact.
            files.writestr(zipfile.ZipInfo("app.py"), code)
        arn = self.client("lambda").create_function(
            FunctionName=name,
            Runtime="python3.13",
            Handler="app.handler",
            Role=role,
            Code={"ZipFile": archive.getvalue()},
            **{"Timeout": 20, **more},
        )["FunctionArn"]
        return str(arn)


def policy_document(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: str | list[str], resource: str | list[str] = "*") -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


def wait_for(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true answer of `what`; a test that waits for longer has failed, on a machine with other work, too."""
    deadline = time.monotonic() + seconds
    while True:
        is_last = time.monotonic() >= deadline  # a look is due even where the machine stood still until then
        if found := what():
            return found
        if is_last:
            raise AssertionError(
                f"nothing came of {getattr(what, '__qualname__', what)} within {seconds:.0f} s"
            )
        time.sleep(0.05)
