"""The processes of one training, which the launcher numbers as torch's does, and what they have in common: a mean."""

import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import numpy as np

SECONDS_TO_MEET = 30.0
_KEY = b"rehearsal"


class Processes:
    """`index` of `count`; the first one listens at MASTER_ADDR and MASTER_PORT, wherever the others run."""

    def __init__(self) -> None:
        self.index = int(os.environ.get("RANK", "0"))
        self.local_index = int(os.environ.get("LOCAL_RANK", "0"))
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self._others: list[Connection] = []
        if self.count == 1:
            return
        address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        if self.index == 0:
            with Listener(address, authkey=_KEY) as listener:
                self._others = [listener.accept() for _ in range(self.count - 1)]
        else:
            self._others = [_found(address)]

    def mean(self, arrays: Sequence[Any]) -> list[Any]:
        """Of each array over all processes; an EOFError where another one has ended."""
        if self.count == 1:
            return list(arrays)
        if self.index > 0:
            self._others[0].send(list(arrays))
            means: list[Any] = self._others[0].recv()
            return means
        all_of_them = [list(arrays), *(other.recv() for other in self._others)]
        means = [np.mean(np.stack(same), axis=0) for same in zip(*all_of_them, strict=True)]
        for other in self._others:
            other.send(means)
        return means


def _found(address: tuple[str, int]) -> Connection:
    """The first process may begin later."""
    until = time.monotonic() + SECONDS_TO_MEET
    while True:
        try:
            return Client(address, authkey=_KEY)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
