"""What becomes of runs whose account has too few Lambdas for all who inspect: a simulation of the flow's own retries.

    ./dev bench throttled_lambdas [--concurrency N] [--map-concurrency N] [--seeds N]

Every run inspects its shards, so many at a time; a shard that finds no free Lambda is repeated as the definition says.
Two minutes after the drops a training that goes on is looked at once. Printed for each load: runs that failed, the most
retries of one run (3 events each of its history), how many looks were given up, and how long the longest waited.
"""

from __future__ import annotations

import argparse
import heapq
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
# Runs, shards of each, seconds of a shard: 25 are 100 images of 12 megapixels with their captions.
LOADS = ((3, 100, 25), (10, 100, 25), (10, 1000, 25), (200, 1, 10), (200, 2, 40), (200, 10, 25))
DROPS_SECONDS, LOOK_AT, LOOK_SECONDS = 20.0, 120.0, 1.0
BETWEEN_SHARDS = (0.1, 0.3)  # seconds until Step Functions asks for the next one
LOOK = -1


@dataclass(frozen=True)
class Retries:
    """Of Lambda.TooManyRequestsException: the delays double from one second to the longest, each with full jitter."""

    attempts: int
    longest: float

    @classmethod
    def of_the_flow(cls) -> Retries:
        text = (ROOT / "statemachine" / "fine_tuning.asl.yaml").read_text(encoding="utf-8")
        named = r"\[Lambda\.TooManyRequestsException\]\n +IntervalSeconds: 1\n"
        found = re.search(named + r" +MaxAttempts: (\d+)\n +BackoffRate: 2\n +MaxDelaySeconds: (\d+)\n", text)
        if found is None:
            raise SystemExit("The flow repeats Lambda.TooManyRequestsException in another way by now.")
        return cls(int(found[1]), float(found[2]))


class Outcome(NamedTuple):
    failed: int
    retries: int
    look_given_up: bool
    look_seconds: float


def simulated(
    runs: int,
    shards: int,
    seconds: float,
    concurrency: int,
    at_a_time: int,
    policy: Retries,
    chance: random.Random,
) -> Outcome:
    """One afternoon: (time, order, kind, run, attempt) in a heap."""
    queue: list[tuple[float, int, str, int, int]] = []
    order = iter(range(10**9))
    waiting, retries, failed = [shards] * runs, [0] * runs, set[int]()
    busy, look_ended = 0, 0.0

    def push(at: float, kind: str, run: int, attempt: int = 0) -> None:
        heapq.heappush(queue, (at, next(order), kind, run, attempt))

    def next_shard(at: float, run: int) -> None:
        if waiting[run] and run not in failed:
            waiting[run] -= 1
            push(at, "ask", run)

    for run in range(runs):
        dropped = chance.uniform(0, DROPS_SECONDS)
        for _ in range(at_a_time):
            next_shard(dropped, run)
    push(LOOK_AT, "ask", LOOK)
    while queue:
        now, _, kind, run, attempt = heapq.heappop(queue)
        if kind == "end":
            busy -= 1
            if run != LOOK:
                next_shard(now + chance.uniform(*BETWEEN_SHARDS), run)
        elif run in failed:
            continue
        elif busy < concurrency:
            busy += 1
            if run == LOOK:
                look_ended = now
            push(now + (LOOK_SECONDS if run == LOOK else seconds * chance.uniform(0.8, 1.2)), "end", run)
        elif attempt == policy.attempts:
            failed.add(run)
            look_ended = now if run == LOOK else look_ended
        else:
            if run != LOOK:
                retries[run] += 1
            push(now + chance.uniform(0, min(policy.longest, 2**attempt)), "ask", run, attempt + 1)
    return Outcome(len(failed - {LOOK}), max(retries), LOOK in failed, look_ended - LOOK_AT)


def lines(concurrency: int, at_a_time: int, seeds: int) -> Iterator[str]:
    policy = Retries.of_the_flow()
    yield f"{concurrency} Lambdas, MapConcurrency {at_a_time}, {policy.attempts} attempts, {seeds} seeds"
    for runs, shards, seconds in LOADS:
        came = [
            simulated(runs, shards, seconds, concurrency, at_a_time, policy, random.Random(seed))
            for seed in range(seeds)
        ]
        yield (
            f"{runs} x {shards} shards of {seconds} s: {max(each.failed for each in came)} failed, "
            f"{max(each.retries for each in came)} retries, {sum(each.look_given_up for each in came)} looks given up, "
            f"the longest after {max(each.look_seconds for each in came) / 60:.0f} min"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--concurrency", type=int, default=10)
    parser.add_argument("--map-concurrency", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    for line in lines(given.concurrency, given.map_concurrency, given.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
