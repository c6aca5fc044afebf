"""One embedded AWS whose CodeBuild really builds; only `./dev test-image` asks for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from local.cli import embedded as emulator
from local.cli import image_machine
from local.cli.account import embedded_account
from local.cli.deployment import build, parameter_overrides
from local.cli.failure import CommandError
from tests.container.conftest import fake_kohya as fake_kohya
from tests.end_to_end.conftest import Deployer, _environment
from tests.end_to_end.journey import Stack

collect_ignore_glob = [] if os.environ.get("TEST_IMAGE") else ["test_*.py"]


@dataclass(frozen=True)
class Built:
    """A deployed stack, and the image that a push made in it."""

    stack: Stack
    deployer: Deployer
    image: str

    @property
    def digest(self) -> str:
        return self.image.partition("@")[2]


NO_SOURCE = (
    "The repository of kohya_ss cannot be reached from here. Give a checkout of sd-scripts that holds the commit of "
    "container/versions/: KOHYA_CHECKOUT=<git repository> ./dev test-image"
)


@pytest.fixture(scope="session")
def builder() -> dict[str, str]:
    try:
        return image_machine.prepare()
    except CommandError as error:
        pytest.exit(str(error), returncode=2)


@pytest.fixture(scope="session")
def built(builder: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    variables = {**builder, "PATH": f"{os.environ['TOOLS_BIN']}:{os.environ['PATH']}:/usr/sbin:/sbin"}
    with _environment(variables), emulator.temporary() as running:
        account = embedded_account(running)
        template = build(tmp_path_factory.mktemp("build"), account.environment, parameter_overrides())
        deployer = Deployer(account, template)
        stack = deployer.deploy()
        try:
            image = deployer.push_image(stack)
        except CommandError as error:
            if "clone_kohya: git clone failed" not in str(error):
                raise
            pytest.exit(f"{error}\n\n{NO_SOURCE}", returncode=2)
        image_machine.keep()
        try:
            yield Built(stack, deployer, image)
        finally:
            names = f"{running.endpoint.removeprefix('http://')}/*"
            subprocess.run(["podman", "rmi", "--force", *images(names)], capture_output=True)


def images(pattern: str) -> list[str]:
    listed = subprocess.run(
        ["podman", "images", "--quiet", "--filter", f"reference={pattern}"], capture_output=True, text=True
    )
    return listed.stdout.split()


@pytest.fixture
def podman(builder: dict[str, str]) -> Any:
    def run(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **builder, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        return subprocess.run(["podman", *words], capture_output=True, text=True, env=environment, **more)

    return run
