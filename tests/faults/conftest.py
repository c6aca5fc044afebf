"""One deployment for all faults; several runs are in flight at once, each with the faults of its own name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Deployer, deployer  # noqa: F401 (a fixture)
from tests.end_to_end.journey import Stack
from tests.faults.catalogue import SCENARIOS
from tests.faults.scene import Outcome, play

AT_ONCE = 4
PARAMETERS = {"MaxRunsInFlight": str(AT_ONCE), "InstanceWaitSeconds": "20", "StallSeconds": "600"}


@pytest.fixture(scope="session")
def faulty_stack(deployer: Deployer) -> Stack:  # noqa: F811
    deployed = deployer.deploy(**PARAMETERS)
    deployer.push_image(deployed)
    return deployed


@pytest.fixture(scope="session")
def outcomes(
    faulty_stack: Stack,
    deployer: Deployer,  # noqa: F811
    request: pytest.FixtureRequest,
) -> Iterator[dict[str, Future[Outcome]]]:
    """Name → outcome to come, of the scenarios whose tests were selected."""
    selected = {
        getattr(item, "callspec", None) and item.callspec.params.get("name") for item in request.session.items
    }

    def redeploy() -> Stack:
        """Another definition of the flow and other settings of its functions, with which all that follows must hold."""
        return deployer.deploy(**{**PARAMETERS, "MapConcurrency": "7", "StallSeconds": "700"})

    numbered = [(number, one) for number, one in enumerate(SCENARIOS) if one.name in selected]
    playing: dict[str, Future[Outcome]] = {}
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fault") as pool:
        for number, one in sorted(numbered, key=lambda each: not each[1].alone):
            playing[one.name] = pool.submit(play, faulty_stack, one, number, redeploy)
            if one.alone:
                wait([playing[one.name]])
        yield playing
        pool.shutdown(cancel_futures=True)
    done = [
        one.result() for one in playing.values() if one.done() and not one.cancelled() and not one.exception()
    ]
    if table := os.environ.get("FAULT_TABLE"):
        Path(table).write_text(rows(done), encoding="utf-8")


def rows(done: Iterable[Outcome]) -> str:
    """The table of docs/reliability.md."""
    return "".join(
        f"| `{one.scenario.name}` | {one.scenario.what} | {one.status} | {', '.join(one.evidence.mails)} |\n"
        for one in done
    )
