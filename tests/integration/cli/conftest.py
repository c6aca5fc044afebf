"""Whatever a test starts may be reached on this machine only."""

from collections.abc import Iterator

import pytest
from pytest_socket import enable_socket, socket_allow_hosts


@pytest.fixture(autouse=True)
def loopback_only() -> Iterator[None]:
    enable_socket()
    socket_allow_hosts(["127.0.0.1", "::1", "localhost"])
    yield
    socket_allow_hosts(None)
