"""One embedded AWS for all tests of this folder; every test uses names of its own in it."""

from collections.abc import Iterator
from itertools import count

import pytest

from tests.embedded_aws.flows import Flows
from tests.embedded_aws.running import RunningEmbeddedAws

_numbers = count(1)


@pytest.fixture(scope="session")
def aws() -> Iterator[RunningEmbeddedAws]:
    with RunningEmbeddedAws() as running:
        yield running


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses, fit for every service."""
    return f"t{next(_numbers)}-{request.function.__name__[5:25].strip('_').replace('_', '-')}"


@pytest.fixture(scope="session")
def flows(aws: RunningEmbeddedAws) -> Flows:
    return Flows(aws)
