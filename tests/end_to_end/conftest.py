"""One embedded AWS with one deployed stack for all end-to-end tests; it takes most of their time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from local.cli import embedded as emulator
from local.cli.account import Account, embedded_account
from local.cli.deployment import build, parameter_overrides, sam, stack_outputs
from local.cli.image_source import push, wait_for_image
from tests.end_to_end.journey import Stack, eventually

TIMING = {
    "SettleSeconds": "1",
    # Longer than what a test uploads late may take on a busy machine.
    "UploadWaitSeconds": "60",
    # Longer than a cold start on a busy machine: a look that comes before the last one is done starts another Lambda.
    "WatchIntervalSeconds": "5",
    "CapacityTries": "2",
    "CapacityWaitSeconds": "2",
}
# Trainings that somebody stops are long ones; they wait rather than keep a processor busy.
STEP_SECONDS = 0.1


@dataclass(frozen=True)
class Deployer:
    """Builds once, deploys any number of stacks."""

    account: Account
    built: Path

    def deploy(self, name: str | None = None, **parameters: str) -> Stack:
        account = self.account_of(name)
        environment = {**account.environment, "SAM_CLI_POLL_DELAY": "1", "SAM_CLI_TELEMETRY": "0"}
        overrides = {**parameter_overrides(), **TIMING, **parameters}
        options = ["--stack-name", name] if name else []
        sam(
            "deploy",
            *options,
            environment=environment,
            folder=self.built.parent,
            overrides=overrides,
            template=self.built,
        )
        assert account.embedded is not None
        return Stack(account.embedded.endpoint, Path(account.embedded.home), stack_outputs(account))

    def push_image(self, stack: Stack, name: str | None = None) -> str:
        """Pushes container/ and waits for the image that it alone must cause, and for the mail that tells of it."""
        account = self.account_of(name)
        told = len(self._told(stack))
        commit = push(account, stack.outputs)
        uri = wait_for_image(account, stack.outputs, commit, lambda line: None).uri
        # Later it would be among the mails that a test counts.
        eventually(lambda: len(self._told(stack)) > told, "the mail of the built image")
        return uri

    def _told(self, stack: Stack) -> list[str]:
        """The builds of this stack that mails tell of; other stacks build meanwhile."""
        project = f":build/{stack.outputs['ImageBuildProjectName']}:"
        builds = [str(mail["X-Attribute-build_id"]) for mail in stack.mails(kind="image-built")]
        return [build for build in builds if project in build]

    def delete(self, name: str) -> None:
        cloudformation = self.account.client("cloudformation")
        cloudformation.delete_stack(StackName=name)
        eventually(lambda: not _stands(cloudformation, name), f"the end of {name}")

    def account_of(self, name: str | None) -> Account:
        """That of a stack, which the commands of local/cli take."""
        if name is None:
            return self.account
        return Account(name, self.account.region, self.account.embedded, self.account.environment)


def _stands(cloudformation: object, name: str) -> bool:
    stacks = cloudformation.list_stacks()["StackSummaries"]  # type: ignore[attr-defined]
    return any(each["StackName"] == name and each["StackStatus"] != "DELETE_COMPLETE" for each in stacks)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def deployer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployer]:
    tools = os.environ.get("TOOLS_BIN")
    if not tools:
        pytest.fail("TOOLS_BIN is not set; run the tests with ./dev test")
    variables = {"PATH": f"{tools}:{os.environ['PATH']}", "REHEARSAL_STEP_SECONDS": str(STEP_SECONDS)}
    with _environment(variables), emulator.temporary() as running:
        account = embedded_account(running)
        folder = tmp_path_factory.mktemp("build")
        built = build(folder, account.environment, parameter_overrides())
        yield Deployer(account, built)


@pytest.fixture(scope="session")
def stack(deployer: Deployer) -> Stack:
    """The stack that most tests share, with an image."""
    deployed = deployer.deploy()
    deployer.push_image(deployed)
    return deployed
