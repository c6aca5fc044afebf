"""No network in unit tests: what reaches for a socket fails. Property tests keep no database of examples."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from pytest_socket import disable_socket, enable_socket

settings.register_profile("functions", database=None, deadline=None)
settings.load_profile("functions")


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    disable_socket()
    yield
    enable_socket()
